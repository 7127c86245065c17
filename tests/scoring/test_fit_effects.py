"""Effects as a run leaves them: fitted to what the network has left open, and only at the end."""

from unittest import mock

import pytest
import torch

from tests.helpers.runs import stopped_before, train_ranker
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.stop import Stop, Stopped
from torchrec_mm.scoring import fit_effects

TABLE = "model.effect_tables.embedding_bags.user_effects_table.weight"
METHODS = ("id", "simtier")


def tensors(run_dir) -> dict[str, torch.Tensor]:
    return read_checkpoint(find_checkpoint(run_dir / "checkpoints").folder, "")


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {method: train_ranker(market, folder / method, method) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_every_known_user_has_effects_and_nobody_else(method, runs):
    table = tensors(runs[method])[TABLE]
    known = Vocabularies.load(runs[method] / "vocabularies.safetensors").request["user_id"]
    assert table.shape == (known.num_rows, 4 if method == "id" else 36)
    assert not table[:2].any()
    assert table[2:, 0].ne(0).all()
    assert bool(table[:, 1:].any()) == (method == "simtier")


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_the_one_that_it_is_without_effects(method, runs, market, tmp_path):
    without = tensors(train_ranker(market, tmp_path / "run", method, "--effects", "0"))
    found = tensors(runs[method])
    assert all("effect" in key for key in found.keys() - without.keys())
    for key, value in without.items():
        assert torch.equal(found[key], value), key


def test_blocks_of_rows_give_the_same_effects(runs, market, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_effects, "BLOCK_ROWS", 3)
    monkeypatch.setattr(fit_effects, "likely_precision", lambda _, width: torch.ones(width))
    in_blocks = tensors(train_ranker(market, tmp_path / "blocks", "simtier"))[TABLE]
    monkeypatch.setattr(fit_effects, "BLOCK_ROWS", 2048)
    at_once = tensors(train_ranker(market, tmp_path / "once", "simtier"))[TABLE]
    torch.testing.assert_close(in_blocks, at_once, rtol=1e-4, atol=1e-6)


def test_a_run_stopped_before_its_end_has_no_effects_and_resumed_has_all(runs, market, tmp_path):
    run_dir = tmp_path / "run"
    with stopped_before(step=3):
        train_ranker(market, run_dir, "simtier", "--checkpoint_steps", "2")
    assert not tensors(run_dir)[TABLE].any()
    train_ranker(market, run_dir, "simtier", "--checkpoint_steps", "2", "--resume")
    assert torch.equal(tensors(run_dir)[TABLE], tensors(runs["simtier"])[TABLE])


def test_a_run_told_to_stop_in_its_last_step_still_gets_its_effects(runs, market, tmp_path):
    run_dir, checks = tmp_path / "run", []

    def stop_at_the_last(self):
        checks.append(None)
        if len(checks) == 4:  # as many as there are steps
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stop, "check", stop_at_the_last)
        train_ranker(market, run_dir, "simtier")
    assert len(checks) == 3
    assert torch.equal(tensors(run_dir)[TABLE], tensors(runs["simtier"])[TABLE])


def test_sums_that_do_not_fit_are_refused_before_anything_is_trained(market, tmp_path, monkeypatch):
    free = mock.Mock(return_value=mock.Mock(free=1 << 10))
    monkeypatch.setattr(fit_effects.shutil, "disk_usage", free)
    with pytest.raises(InputError, match="effects must be so narrow that their sums fit into"):
        train_ranker(market, tmp_path / "run", "simtier")
    assert not (tmp_path / "run").exists()
    train_ranker(market, tmp_path / "run", "simtier", "--effects", "0")
