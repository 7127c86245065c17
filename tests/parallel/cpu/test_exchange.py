"""Look-ups among two ranks the short way: TorchRec's rows, losses, weights and state."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parallel.cpu.two_ranks import STEPS
from tests.parallel.launch import on_two_ranks

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="states gloo ranks on a CPU")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    on_two_ranks("tests.parallel.cpu.two_ranks", folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def assert_alike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("rank", range(2))
def test_the_short_way_learns_what_torchrec_learns_under_the_same_names(ranks, rank):
    assert_alike(ranks[rank]["short"], ranks[rank]["torchrec"])
    assert len(ranks[rank]["short"]) > 8


@pytest.mark.parametrize("rank", range(2))
def test_as_on_gpus_ranks_learn_the_same_under_the_same_names(ranks, rank):
    assert_alike(ranks[rank]["as on GPUs"], ranks[rank]["torchrec"])


@pytest.mark.parametrize("rank", range(2))
def test_as_on_gpus_rows_are_sent_and_not_every_bag_of_every_rank(ranks, rank):
    sent, by_torchrec = (ranks[rank][f"bytes {name}"] for name in ("as on GPUs", "torchrec"))
    assert 0 < sent < by_torchrec / 2, (sent, by_torchrec)


@pytest.mark.parametrize("rank", range(2))
def test_what_is_announced_and_what_is_not_are_looked_up_alike(ranks, rank):
    ours, theirs = ranks[rank]["short"], ranks[rank]["unannounced"]
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("rank", range(2))
def test_over_gloo_and_over_sockets_ranks_learn_the_same(ranks, rank):
    assert_alike(ranks[rank]["over gloo"], ranks[rank]["short"])


def test_a_step_takes_five_messages_of_gloos_on_every_rank_whatever_it_looks_up(ranks):
    for found in ranks:
        assert found["calls over gloo"] == {"all_to_all_single": 4 * STEPS, "all_reduce": STEPS}


def test_on_one_host_a_step_takes_none_of_gloos(ranks):
    assert [found["calls short"] for found in ranks] == [{}, {}]


@pytest.mark.parametrize("rank", range(2))
def test_where_nothing_learns_rows_are_the_same(ranks, rank):
    torch.testing.assert_close(ranks[rank]["scored"], ranks[rank]["scored by torchrec"])
