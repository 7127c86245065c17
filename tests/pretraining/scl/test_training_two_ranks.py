"""A run on two ranks is the run on one: losses, weights, banks, and what it is judged to be."""

import shutil

import pytest
import torch

from tests.parallel.launch import on_two_ranks
from tests.pretraining.scl.training_ranks import RUNS, STEPS, Room, first_steps, gone_on
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.runs.checkpoint_folders import find_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def room(tmp_path_factory, packed, encoders):
    folder = tmp_path_factory.mktemp("ranks")
    shutil.copytree(packed.folder, folder / "packed")
    shutil.copytree(encoders, folder / "encoders")
    return Room(folder)


@pytest.fixture(scope="module")
def ranks(room):
    on_two_ranks("tests.pretraining.scl.training_ranks", room.folder)
    return [torch.load(room.folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one(room):
    """The same steps on one rank, and those that follow."""
    results = {}
    with process_group() as worker:
        for name in RUNS:
            run = room.run(name, worker)
            results[name] = first_steps(run)
            results["judged"] = run.judge.report(run.judge.encode(run.encoder))
            results[name]["next"] = torch.stack(run.steps(2, first=STEPS))
    return results


def is_bank(name: str) -> bool:
    return ".bank." in name


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_have_the_losses_and_weights_of_one(ranks, one, name):
    expected = {key: value for key, value in one[name]["state"].items() if not is_bank(key)}
    for rank in ranks:
        torch.testing.assert_close(rank[name]["figures"], one[name]["figures"], rtol=1e-5, atol=0)
        state = {key: value for key, value in rank[name]["state"].items() if not is_bank(key)}
        # Moments of Adam are sums of gradients, of numbers far larger than what is left of them.
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_all_ranks_hold_the_same_bits_and_the_banks_the_keys_of_one(ranks, one, name):
    first, second = (rank[name]["state"] for rank in ranks)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    banks = {key: value for key, value in one[name]["state"].items() if is_bank(key)}
    assert any(key.endswith("enqueued") and value > 20 for key, value in banks.items())
    for key, value in banks.items():
        torch.testing.assert_close(first[key], value, rtol=2e-3, atol=1e-5)  # a step of float16


@pytest.mark.parametrize("name", RUNS)
def test_one_rank_goes_on_where_two_were(ranks, one, room, name):
    checkpoint = find_checkpoint(room.folder / f"{name}-checkpoints").folder
    with process_group() as worker:
        figures = gone_on(room.run(name, worker), checkpoint)
    torch.testing.assert_close(figures, one[name]["next"], rtol=1e-5, atol=0)


def test_two_ranks_judge_as_one(ranks, one):
    first, second = (rank["judged"] for rank in ranks)
    assert first == second
    assert first["spaces"].keys() == {"image", "text", "fused"}
    for space, figures in first["spaces"].items():
        assert figures == pytest.approx(one["judged"]["spaces"][space], rel=1e-4)
