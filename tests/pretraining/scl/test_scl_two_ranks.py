"""SCL on two ranks is SCL on one, however unevenly missing pictures and texts lie over them."""

import pytest
import torch

from tests.parallel.launch import on_two_ranks
from tests.pretraining.scl.scl_ranks import STEPS


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scl")
    on_two_ranks("tests.pretraining.scl.scl_ranks", folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_ranks_have_the_loss_and_figures_of_one(ranks):
    for rank in ranks:
        for step in rank["compared"]["steps"]:
            torch.testing.assert_close(*step["losses"], rtol=1e-6, atol=0)
            torch.testing.assert_close(*step["figures"], rtol=1e-6, atol=1e-7)


def test_two_ranks_have_the_gradients_of_one(ranks):
    """To 1e-6 of the largest number of each gradient, in float32."""
    for rank in ranks:
        for step in rank["compared"]["steps"]:
            shared, alone = step["gradients"]
            assert shared.keys() == alone.keys() and len(alone) == 7
            for name, expected in alone.items():
                scale = expected.abs().max().item()
                assert scale > 0
                torch.testing.assert_close(shared[name], expected, rtol=0, atol=1e-6 * scale)


def test_two_ranks_have_the_banks_of_one(ranks):
    """The same keys in the same slots, to the last digit of float16; ids are equal."""
    for rank in ranks:
        shared, alone = rank["compared"]["banks"]
        assert len(alone) == 9
        for name, expected in alone.items():
            torch.testing.assert_close(shared[name], expected, rtol=1e-3, atol=1e-6)
        assert all(alone[f"losses.{space}.bank.enqueued"] > 9 for space in ("image", "text"))


def test_after_100_steps_the_states_of_all_ranks_are_equal_bit_by_bit(ranks):
    first, second = (rank["trained"]["state"] for rank in ranks)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert first["losses.fused.bank.enqueued"] > 9 * STEPS


def test_a_restored_module_has_the_same_next_loss_on_every_rank(ranks):
    for rank in ranks:
        loss, restored = rank["trained"]["next_losses"]
        assert loss == restored > 0
