"""The loader: each request once, cut alike for any number of ranks, read as it is needed."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.encode.arrays import InMemory, arrays_of, items_of
from torchrec_mm.data.encoded.encoded import RequestArrays
from torchrec_mm.data.stream import loader
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.epoch import WINDOW_GROUPS
from torchrec_mm.data.stream.loader import COLLATING, RequestLoader, one_ahead, read_ahead

ITEMS = items_of([10, 20, 30, 40], item_id=[2, 3, 4, 5])


def plain(num_requests: int, group_size: int = 5) -> InMemory:
    """Request r has r % 4 + 1 candidates and r % 3 behaviours."""
    arrays = arrays_of(
        [list(range(r % 3)) for r in range(num_requests)],
        [list(range(r % 4 + 1)) for r in range(num_requests)],
    )
    return InMemory(arrays, ITEMS, group_size, [])


def loader_of(data, most, rank=0, world_size=1, seed=None) -> RequestLoader:
    return RequestLoader(
        data,
        Collator(ITEMS, True, (), 50),
        BatchLimits(requests=most),
        rank=rank,
        world_size=world_size,
        shuffle_seed=seed,
    )


def global_batches(data, most, world_size, seed=None, epoch=0, done=0) -> list[list[list[int]]]:
    """Requests by step and rank, without those that are masked out."""
    shares = [
        [
            batch.rows.tolist() if len(batch.candidates) else []
            for batch in loader_of(data, most, rank, world_size, seed).epoch(epoch, done=done)
        ]
        for rank in range(world_size)
    ]
    return [list(step) for step in zip(*shares, strict=True)]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 3), st.sampled_from([None, 0, 7]))
def test_every_request_is_seen_exactly_once_an_epoch(count, most, world_size, seed):
    steps = global_batches(plain(count), most, world_size, seed)
    assert sorted(row for step in steps for share in step for row in share) == list(range(count))


def test_global_batches_do_not_depend_on_the_number_of_ranks():
    data = plain(23)
    alone, two, three = (global_batches(data, 6, ranks, seed=3) for ranks in (1, 2, 3))
    joined = [[sum(step, []) for step in steps] for steps in (alone, two, three)]
    assert joined[0] == joined[1] == joined[2]


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_epoch_can_be_resumed_by_another_number_of_ranks(before, after):
    data = plain(40)
    first = global_batches(data, 6, before, seed=3)[:4]
    done = int(loader_of(data, 6, seed=3).ends(0)[3])
    rest = global_batches(data, 6, after, seed=3, done=done)
    seen = [row for step in first + rest for share in step for row in share]
    assert sorted(seen) == list(range(40))


def test_a_rank_without_a_request_keeps_step_with_one_that_is_masked_out():
    loaders = [list(loader_of(plain(4), 1, rank, 3).epoch(0)) for rank in range(3)]
    assert [len(batches) for batches in loaders] == [4, 4, 4]
    real = [[len(batch.candidates) > 0 for batch in batches] for batches in loaders]
    assert np.sum(real, axis=0).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_loss_weights_make_the_mean_over_ranks_a_mean_over_impressions(world_size):
    loaders = [loader_of(plain(11), 4, rank, world_size).epoch(0) for rank in range(world_size)]
    for step in zip(*loaders, strict=True):
        impressions = sum(len(batch.candidates) for batch in step)
        per_impression = sum(float(len(b.candidates) * b.loss_weight) for b in step)
        assert per_impression / world_size == pytest.approx(1)
        assert float(step[0].loss_weight) == pytest.approx(world_size / impressions)


def test_ends_tell_the_number_of_steps_without_reading():
    data = plain(23)
    assert len(loader_of(data, 6).ends(0)) == 4 and data.read_groups == []


def test_a_rank_reads_only_the_row_groups_that_its_requests_lie_in():
    reads = []
    for rank in range(2):
        data = plain(5 * WINDOW_GROUPS)
        list(loader_of(data, 5 * WINDOW_GROUPS, rank, 2, seed=0).epoch(0))
        reads.append(len(data.read_groups))
    assert sum(reads) <= WINDOW_GROUPS + 1


@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_do_not_depend_on_how_many_are_picked_at_once(world_size, monkeypatch):
    data, picked = plain(60), []
    take = RequestArrays.take
    monkeypatch.setattr(
        RequestArrays, "take", lambda arrays, rows: picked.append(len(rows)) or take(arrays, rows)
    )
    found = []
    for values in (1, 600, 1 << 18):
        monkeypatch.setattr(loader, "PICKED_VALUES", values)
        batches = [
            [*loader_of(data, 7, rank, world_size, 3).epoch(0)] for rank in range(world_size)
        ]
        columns = ("rows", "labels", "candidates", "behaviours", "request")
        found.append([[getattr(b, c).tolist() for b in of for c in columns] for of in batches])
        found[-1].append(len(picked) - len(data.read_groups))  # which are taken, too
        picked.clear()
        data.read_groups.clear()
    one, several, all_at_once = found
    assert one[:-1] == several[:-1] == all_at_once[:-1]
    assert one[-1] > several[-1] > all_at_once[-1] == world_size


def test_a_collator_that_ranks_call_in_step_runs_where_batches_are_asked_for():
    collated_in = []

    class Noting(Collator):
        def __call__(self, *args, **kwargs):
            collated_in.append(threading.current_thread())
            return super().__call__(*args, **kwargs)

    data = plain(9)
    collator = Noting(ITEMS, True, (), 50)
    in_step = RequestLoader(data, collator, BatchLimits(requests=4), collate_ahead=False).epoch(0)
    rows = [next(in_step).rows.tolist()]
    assert collated_in == [threading.main_thread()]
    rows += [batch.rows.tolist() for batch in in_step]
    assert rows == [batch.rows.tolist() for batch in loader_of(data, 4).epoch(0)]
    assert not [t for t in threading.enumerate() if t.name == "read_ahead"]


@pytest.mark.parametrize("ahead", [True, False])
def test_who_keeps_batches_from_being_made_may_do_what_no_collator_is_to_see(ahead):
    held = []

    class Noting(Collator):
        def __call__(self, *args, **kwargs):
            held.append(COLLATING.locked())
            return super().__call__(*args, **kwargs)

    limits, collator = BatchLimits(requests=4), Noting(ITEMS, True, (), 50)
    batches = RequestLoader(plain(9), collator, limits, collate_ahead=ahead).epoch(0)
    assert len(list(batches)) == 3
    assert held == [True] * 3 and not COLLATING.locked()


def test_leaving_early_ends_the_reading_thread_of_batches_in_step_too():
    in_step = RequestLoader(
        plain(9), Collator(ITEMS, True, (), 50), BatchLimits(requests=1), collate_ahead=False
    ).epoch(0)
    next(in_step)
    in_step.close()
    assert not [t for t in threading.enumerate() if t.name == "read_ahead"]


def test_the_epoch_that_follows_is_begun_while_one_ends_and_read_once():
    data, alone = plain(60), loader_of(plain(60), 7, 0, 1, 3)
    following = loader_of(data, 7, 0, 1, 3)
    for epoch in range(3):
        ahead = [batch.rows.tolist() for batch in following.epoch(epoch, until=3)]
        assert ahead == [batch.rows.tolist() for batch in alone.epoch(epoch)]
        if epoch < 2:
            *_, coming = following._begun
            assert following._begun[0] == range(epoch + 1, 3) and coming is not None
    assert following._begun is None
    assert len(data.read_groups) == 3 * len(data.groups)


def test_an_epoch_that_was_not_the_one_begun_is_read_anew():
    loader = loader_of(plain(60), 7, 0, 1, 3)
    list(loader.epoch(0, until=9))
    alone = loader_of(plain(60), 7, 0, 1, 3)
    for epoch, done in ((2, 0), (1, 8)):
        found = [batch.rows.tolist() for batch in loader.epoch(epoch, done=done, until=9)]
        assert found == [batch.rows.tolist() for batch in alone.epoch(epoch, done=done)]


def test_while_one_is_used_the_next_is_made_and_no_further_one():
    made = [threading.Event() for _ in range(4)]

    def items():
        for number, event in enumerate(made):
            event.set()
            yield number

    ahead = one_ahead(items())
    for number in range(3):
        assert next(ahead) == number
        assert made[number + 1].wait(60)
        assert [event.is_set() for event in made[number + 2 :]] == [False] * (2 - number)
    assert [*ahead] == [3]


def test_what_fails_while_the_next_is_made_is_raised_in_its_turn():
    def items():
        yield 1
        raise OSError("gone")

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)


def test_what_fails_while_reading_ahead_is_raised_to_the_reader_in_its_turn():
    def items():
        yield 1
        raise OSError("torn")

    ahead = read_ahead(items, depth=2)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="torn"):
        next(ahead)


def test_leaving_early_ends_the_thread_that_reads_ahead():
    ahead = read_ahead(lambda: iter(range(1000)), depth=2)
    assert next(ahead) == 0
    ahead.close()
    assert not [t for t in threading.enumerate() if t.name == "read_ahead"]


def test_reading_ahead_stays_within_its_depth():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    ahead = read_ahead(items, depth=2)
    for number in range(50):
        assert next(ahead) == number
        assert len(made) <= number + 1 + 2 + 1  # consumed, waiting, and one in the making
    ahead.close()
