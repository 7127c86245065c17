"""Messages between ranks over sockets: every byte, in order, whoever is first; and who has gone."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import combinations

import pytest
import torch
from torch import Tensor

from torchrec_mm.kernels.messages import Messages

LARGE = 3_000_000  # numbers: far more than a socket takes at once


def connected(ranks: int, timeout: timedelta = timedelta(minutes=1)) -> list[Messages]:
    """Ranks that are threads here."""
    sockets: list[list] = [[None] * ranks for _ in range(ranks)]
    for a, b in combinations(range(ranks), 2):
        sockets[a][b], sockets[b][a] = socket.socketpair()
    return [Messages(own, timeout) for own in sockets]


def on_each(ranks: list[Messages], work: Callable[[Messages], object]) -> list:
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(work, ranks))


def numbers(sender: int, receiver: int, count: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + count) * 100 + sender * 10 + receiver


def exchanged(ranks: list[Messages], counts: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """What each rank received and should have; rank s sends ``counts[s][r]`` numbers to r."""
    everyone = range(len(ranks))

    def work(own: Messages) -> tuple[Tensor, Tensor]:
        to, from_ranks = counts[own.rank], [counts[s][own.rank] for s in everyone]
        sent = torch.cat([numbers(own.rank, r, to[r]) for r in everyone])
        came = torch.full((sum(from_ranks),), -1)
        message = own.all_to_all(came, sent, from_ranks, to)
        sent.zero_()  # is the sender's own again
        message.wait()
        return came, torch.cat([numbers(s, own.rank, from_ranks[s]) for s in everyone])

    yield from on_each(ranks, work)


@pytest.mark.parametrize(
    "counts",
    [
        [[2, 3], [1, 4]],
        [[0, 0], [0, 0]],
        [[1, 0, 5], [0, 0, 0], [7, 2, 1]],
        [[1, LARGE], [LARGE, 1]],
        [[0, LARGE], [0, 0]],
    ],
)
def test_every_rank_gets_what_the_others_sent_it(counts):
    for came, expected in exchanged(connected(len(counts)), counts):
        assert torch.equal(came, expected)


def test_rows_of_any_width_and_dtype_are_sent_whole():
    def work(own: Messages) -> bool:
        sent = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(own.rank))
        came = torch.empty(3, 5, 2)
        own.all_to_all(came, sent, [1, 2] if own.rank == 0 else [2, 1], [1, 2][:: 1 - 2 * own.rank])
        own.waiting[-1].wait()
        return bool((came > 0).all())

    assert on_each(connected(2), work) == [True, True]


@pytest.mark.parametrize("count", [3, LARGE])
def test_messages_begun_together_arrive_in_that_order_whichever_is_waited_for(count):
    def work(own: Messages) -> list[Tensor]:
        came = [torch.empty(2 * count, dtype=torch.int64) for _ in range(3)]
        messages = []
        for number, into in enumerate(came):
            sent = torch.cat([numbers(own.rank, r, count, start=number) for r in range(2)])
            messages.append(own.all_to_all(into, sent, [count] * 2, [count] * 2))
        messages[2].wait()
        messages[0].wait()
        return came

    for rank, came in enumerate(on_each(connected(2), work)):
        for number, found in enumerate(came):
            expected = [numbers(s, rank, count, start=number) for s in range(2)]
            assert torch.equal(found, torch.cat(expected))


def test_a_rank_that_goes_elsewhere_has_sent_what_was_asked_of_it():
    def work(own: Messages) -> int:
        counts = [[0, LARGE], [1, 0]]
        to, from_ranks = counts[own.rank], [counts[s][own.rank] for s in range(2)]
        came = torch.empty(sum(from_ranks), dtype=torch.int64)
        sent = torch.ones(sum(to), dtype=torch.int64)
        own.all_to_all(came, sent, from_ranks, to).wait()
        return int(came.sum())  # and this rank does nothing more

    assert on_each(connected(2), work) == [1, LARGE]


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("size", [0, 1, 2, 7, 10_000])
def test_sums_are_those_of_all_ranks_and_the_same_bits_on_each(ranks, size):
    def work(own: Messages) -> Tensor:
        values = torch.randn(size, generator=torch.Generator().manual_seed(own.rank))
        own.sum(values)
        return values

    found = on_each(connected(ranks), work)
    drawn = [torch.randn(size, generator=torch.Generator().manual_seed(r)) for r in range(ranks)]
    torch.testing.assert_close(found[0], sum(drawn))
    assert all(torch.equal(found[0], other) for other in found)


def test_a_rank_that_has_gone_is_named():
    first, second = connected(2)
    for other in second.sockets:
        if other is not None:
            other.close()
    came = torch.empty(2)
    with pytest.raises(RuntimeError, match="connection closed by peer, rank 1"):
        first.all_to_all(came, torch.ones(2), [1, 1], [1, 1]).wait()


def test_a_rank_that_says_nothing_is_not_waited_for_for_ever():
    first, _second = connected(2, timedelta(milliseconds=10))
    came = torch.empty(2)
    with pytest.raises(RuntimeError, match="a rank must send within 0:00:00.010000"):
        first.all_to_all(came, torch.ones(2), [1, 1], [1, 1]).wait()


def test_rows_that_are_not_as_many_as_was_said_are_refused():
    first, _second = connected(2)
    with pytest.raises(ValueError, match="as many as"):
        first.all_to_all(torch.empty(2), torch.ones(3), [1, 1], [1, 1])
