"""What a run shows of itself while it trains."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers import another_rank
from tests.helpers.runs import lines_of, stopped_before, train_ranker
from tests.helpers.small_market import read_parquet
from tests.metrics.test_auc_gauc import auc_by_definition
from torchrec_mm.errors import TrainingDiverged
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.metrics.binned_auc import BinnedAuc
from torchrec_mm.runs.scalars import Scalars
from torchrec_mm.runs.tensor_shards import TensorShards
from torchrec_mm.train import fit, observer
from torchrec_mm.train.observer import over_ranks, table_bytes, window_figures

STEPS = 4  # of an epoch


@pytest.fixture(scope="module")
def traced(market, tmp_path_factory) -> Path:
    """Three epochs in windows of three steps, two steps traced."""
    run_dir = tmp_path_factory.mktemp("runs") / "simtier"
    more = ("--epochs", "3", "--log_every_steps", "3", "--profile_steps", "2")
    return train_ranker(market, run_dir, "simtier", *more)


def scalars(run_dir: Path) -> dict[str, dict[int, float]]:
    """Value by step, of each scalar in TensorBoard."""
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_holds_every_window(traced):
    found = scalars(traced)
    assert set(found) == {
        *("loss", "auc", "normalized_entropy", "impressions_per_s"),
        *("vector_coverage", "learning_rate", "table_bytes"),
    }
    windows = [3, 4, 6, 8, 9, 12]
    for name in set(found) - {"table_bytes"}:
        assert list(found[name]) == windows
    logged = {line["step"]: line["loss"] for line in lines_of(traced, "step")}
    assert found["loss"] == pytest.approx(logged)
    assert all(0 <= value <= 1 for value in found["auc"].values())
    assert all(0 < value <= 1 for value in found["vector_coverage"].values())
    assert all(value > 0 for value in found["impressions_per_s"].values())


@pytest.mark.parametrize("method", ["vector", "simtier", "muse"])
def test_vector_coverage_is_the_share_of_a_batchs_items_that_have_a_vector(
    method, market, tmp_path, monkeypatch
):
    seen, rows = observer.Observer.seen, []

    def noted(self, batches):
        for batch in seen(self, batches):
            rows.append(batch.rows.tolist())
            yield batch

    monkeypatch.setattr(observer.Observer, "seen", noted)
    run_dir = train_ranker(market, tmp_path / "run", method, "--log_every_steps", "20")
    requests = read_parquet(market.data / "requests" / "train")
    items = {
        item
        for row in rows[-1]
        for name in ("candidate_item_ids", "behaviour_item_ids")
        for item in requests[name][row]
    }
    known = items & set(ItemVectors.open(market.vectors).item_ids.tolist())
    assert 0 < len(known) < len(items)
    found = scalars(run_dir)["vector_coverage"]
    assert found == {STEPS: pytest.approx(len(known) / len(items))}


def test_table_bytes_are_rows_of_weights_and_a_number_of_state(traced):
    spec = json.loads((traced / "model.json").read_text())["spec"]
    rows = sum(size for kind in spec["tables"].values() if kind for size in kind.values())
    of_effects = spec["tables"]["request"]["user_id"] * 4 * (spec["effects"] + 1)
    assert scalars(traced)["table_bytes"] == {0: rows * 4 * (4 + 1) + of_effects}


def test_the_trace_is_in_the_run_folder(traced):
    events = json.loads((traced / "trace.json").read_text())["traceEvents"]
    steps = {event["name"] for event in events if event.get("name", "").startswith("ProfilerStep")}
    assert len(steps) == 2


def test_a_window_is_measured_on_its_own_impressions():
    labels, logits = torch.tensor([1, 0, 0, 1, 0]), torch.tensor([2.0, 1.0, 2.0, -1.0, -3.0])
    counted = BinnedAuc()
    counted.add(labels, logits)
    found = window_figures(counted.counts, loss=0.3)
    assert found["auc"] == pytest.approx(auc_by_definition(labels.tolist(), logits.tolist()))
    entropy = -(0.4 * math.log(0.4) + 0.6 * math.log(0.6))
    assert found["normalized_entropy"] == pytest.approx(0.3 / entropy)


def test_a_window_of_one_label_has_no_auc():
    counted = BinnedAuc()
    counted.add(torch.zeros(3), torch.zeros(3))
    found = window_figures(counted.counts, loss=0.3)
    assert math.isnan(found["auc"]) and math.isnan(found["normalized_entropy"])


def test_impressions_of_all_ranks_are_measured_and_a_ranks_own_stay_its_own(monkeypatch):
    another_rank.join(monkeypatch, lambda ours: 10 * ours)
    counted = BinnedAuc()
    counted.add(torch.tensor([1, 0]), torch.tensor([1.0, -1.0]))
    assert over_ranks(counted).sum() == 22 and counted.counts.sum() == 2


def test_table_bytes_are_those_of_the_fullest_rank(monkeypatch):
    shards = {"model.a.embedding_bags.b.weight": TensorShards.of(torch.zeros(3, 4))}
    monkeypatch.setattr(observer, "model_shards", lambda model, optimizer: shards)
    another_rank.join(monkeypatch, lambda ours: torch.tensor(77))
    trained = SimpleNamespace(model=None, optimizer=None, worker=SimpleNamespace(device="cpu"))
    assert table_bytes(trained) == 77


def test_a_figure_that_is_no_number_is_left_out_of_tensorboard(tmp_path):
    run = SimpleNamespace(path=tmp_path, worker=SimpleNamespace(is_first=True))
    with Scalars(run, start=0) as written:
        written.write(3, {"auc": math.nan, "loss": 0.5, "speed": math.inf})
    assert scalars(tmp_path) == {"loss": {3: 0.5}}


def test_a_resumed_run_takes_back_the_scalars_that_it_writes_again(market, tmp_path):
    more = ("--epochs", "2", "--checkpoint_steps", "2")
    with stopped_before(3):
        train_ranker(market, tmp_path / "run", "id", *more)
    train_ranker(market, tmp_path / "run", "id", *more, "--resume", "true")
    losses = scalars(tmp_path / "run")["loss"]
    assert list(losses) == list(range(1, 2 * STEPS + 1))
    logged = {line["step"]: line["loss"] for line in lines_of(tmp_path / "run", "step")}
    assert losses == pytest.approx(logged)


def test_a_run_that_diverges_stops_and_names_step_requests_file_and_checkpoint(
    market, tmp_path, monkeypatch
):
    before_step = fit.Loop._before_step

    def spoil(loop):
        before_step(loop)
        if loop.training.position.step == 2:
            for parameter in loop.training.distributed.model.parameters():
                parameter.data.fill_(float("nan"))

    monkeypatch.setattr(fit.Loop, "_before_step", spoil)
    run_dir = tmp_path / "run"
    more = ("--checkpoint_steps", "1", "--log_every_steps", "20")
    with pytest.raises(TrainingDiverged) as raised:
        train_ranker(market, run_dir, "id", *more)
    words = str(raised.value)
    assert words.startswith("loss became nan in step 3 (epoch 1, after ")
    assert "more (part-" in words and "row group 0" in words
    assert words.endswith(f"last good checkpoint: {run_dir / 'checkpoints' / 'step-00000002'}")
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-00000002"]
