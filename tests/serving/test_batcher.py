"""What waits together is scored together, what is of no use any more is not."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from torchrec_mm.serving.batcher import MicroBatcher, Refused, Scored

LONG_S = 60.0


def asking(count: int, name: int = 0, fails: bool = False) -> Any:
    """Requests of ``count`` candidates, as a batcher sees them."""
    return SimpleNamespace(num_impressions=count, name=name, fails=fails)


class Model:
    """Scores each candidate of a request with its name; ``held``, it waits to be let go."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()
        if not held:
            self.go.set()

    def __call__(self, parts: Sequence[Any]) -> Scored:
        self.begun.set()
        self.go.wait(LONG_S)
        if any(part.fails for part in parts):
            raise KeyError("broken")
        self.batches.append([part.name for part in parts])
        return Scored([np.full(part.num_impressions, part.name) for part in parts], "step-1")


def run(model: Model, work: Callable[[MicroBatcher], Awaitable[None]], **limits: int) -> None:
    async def main() -> None:
        sizes = {"batch_candidates": 10, "queue_candidates": 100} | limits
        batcher = MicroBatcher(model, **sizes)
        batcher.start()
        try:
            await work(batcher)
        finally:
            model.go.set()
            await batcher.stop()

    asyncio.run(main())


async def begun(model: Model) -> None:
    """Until the first batch is being scored."""
    await asyncio.get_running_loop().run_in_executor(None, model.begun.wait, LONG_S)


async def all_waiting(batcher: MicroBatcher, candidates: int) -> None:
    while batcher.queued < candidates:
        await asyncio.sleep(0)


def test_what_arrives_while_a_batch_is_scored_is_the_next_one_up_to_its_candidates():
    model = Model(held=True)

    async def work(batcher: MicroBatcher) -> None:
        first = asyncio.create_task(batcher.ask(asking(1, 1), LONG_S))
        await begun(model)
        sizes = {2: 4, 3: 6, 4: 1, 5: 12}
        others = [asyncio.create_task(batcher.ask(asking(n, k), LONG_S)) for k, n in sizes.items()]
        await all_waiting(batcher, 23)
        model.go.set()
        for name, task in zip((1, *sizes), (first, *others), strict=True):
            found, checkpoint = await task
            assert (found == name).all() and checkpoint == "step-1"
        assert batcher.queued == 0

    run(model, work)
    assert model.batches == [[1], [2, 3], [4], [5]]


def test_a_full_queue_refuses_and_takes_again_once_it_is_shorter():
    model = Model(held=True)

    async def work(batcher: MicroBatcher) -> None:
        first = asyncio.create_task(batcher.ask(asking(1, 1), LONG_S))
        await begun(model)
        second = asyncio.create_task(batcher.ask(asking(10, 2), LONG_S))
        await all_waiting(batcher, 10)
        with pytest.raises(Refused, match="10 candidates are waiting"):
            await batcher.ask(asking(3, 3), LONG_S)
        model.go.set()
        await asyncio.gather(first, second)
        await batcher.ask(asking(3, 4), LONG_S)

    run(model, work, queue_candidates=12)
    assert model.batches == [[1], [2], [4]]


def test_where_what_is_usually_asked_has_no_room_nothing_need_be_read_to_refuse_it():
    model = Model(held=True)

    async def work(batcher: MicroBatcher) -> None:
        batcher.check_room()  # nobody has asked for anything
        first = asyncio.create_task(batcher.ask(asking(5, 1), LONG_S))
        await begun(model)
        others = []
        for queued in (5, 10):
            batcher.check_room()
            others.append(asyncio.create_task(batcher.ask(asking(5, queued), LONG_S)))
            await all_waiting(batcher, queued)
        with pytest.raises(Refused, match="10 candidates are waiting"):
            batcher.check_room()
        model.go.set()
        await asyncio.gather(first, *others)
        batcher.check_room()

    run(model, work, queue_candidates=12)


def test_more_than_the_queue_holds_is_scored_where_nothing_waits():
    model = Model()

    async def work(batcher: MicroBatcher) -> None:
        found, _ = await batcher.ask(asking(500, 1), LONG_S)
        assert len(found) == 500

    run(model, work)


def test_who_does_not_wait_any_more_is_not_scored():
    model = Model(held=True)

    async def work(batcher: MicroBatcher) -> None:
        first = asyncio.create_task(batcher.ask(asking(1, 1), LONG_S))
        await begun(model)
        gone = asyncio.create_task(batcher.ask(asking(2, 2), LONG_S))
        kept = asyncio.create_task(batcher.ask(asking(2, 3), LONG_S))
        await all_waiting(batcher, 4)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        model.go.set()
        await asyncio.gather(first, kept)

    run(model, work)
    assert model.batches == [[1], [3]]


def test_what_is_too_late_is_refused_and_not_scored():
    model = Model(held=True)

    async def work(batcher: MicroBatcher) -> None:
        first = asyncio.create_task(batcher.ask(asking(1, 1), LONG_S))
        await begun(model)
        with pytest.raises(Refused, match="no score within 0.001 s"):
            await batcher.ask(asking(1, 2), 0.001)
        model.go.set()
        await first

    run(model, work)
    assert model.batches == [[1]]


def test_one_bad_request_fails_alone():
    model = Model(held=True)

    async def work(batcher: MicroBatcher) -> None:
        first = asyncio.create_task(batcher.ask(asking(1, 1), LONG_S))
        await begun(model)
        bad = asyncio.create_task(batcher.ask(asking(2, 2, fails=True), LONG_S))
        good = [asyncio.create_task(batcher.ask(asking(2, n), LONG_S)) for n in (3, 4)]
        await all_waiting(batcher, 6)
        model.go.set()
        await asyncio.gather(first, *good)
        with pytest.raises(KeyError, match="broken"):
            await bad

    run(model, work)
    assert model.batches == [[1], [3], [4]]


def test_what_waits_when_it_ends_is_answered_and_nothing_more_is_taken():
    model = Model(held=True)

    async def work(batcher: MicroBatcher) -> None:
        tasks = [asyncio.create_task(batcher.ask(asking(10, n), LONG_S)) for n in (1, 2)]
        await begun(model)
        ending = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="ending"):
            await batcher.ask(asking(1, 3), LONG_S)
        model.go.set()
        await asyncio.gather(ending, *tasks)

    run(model, work)
    assert model.batches == [[1], [2]]
