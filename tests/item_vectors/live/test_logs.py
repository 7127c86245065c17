"""Logs of every kind: the newest version of an item counts, in whatever order events come."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.live import OTHER, SPACE, Event, changes
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.log import Log, Written

EXTREMES = [-(2**63), -1, 0, 1, 2**53, 2**53 + 1, 2**63 - 1]


def write(log: Log, *events: Event) -> Written:
    return log.write(changes(*events), SPACE.origin)


def content(log: Log, after: int = 0) -> dict[int, tuple[int, int | None]]:
    """Version and filling of each item, None if deleted."""
    logged = log.since(after).changes
    columns = (logged.item_ids, logged.versions, logged.deleted, logged.vectors)
    return {
        int(item): (int(version), None if deleted else int(vector[0]))
        for item, version, deleted, vector in zip(*columns, strict=True)
    }


def test_a_log_starts_with_nothing(log):
    assert log.last() == 0
    assert content(log) == {}
    assert log.since(0).newest_s == 0.0


def test_a_late_or_repeated_event_changes_nothing_and_is_counted(log):
    assert write(log, (7, 20, 1), (7, 10, 2), (7, 20, 3)) == Written(applied=1, late=2)
    assert write(log, (7, 19, 4), (8, 1, 5)) == Written(applied=1, late=1)
    assert content(log) == {7: (20, 1), 8: (1, 5)}


def test_a_late_event_does_not_raise_the_dead(log):
    write(log, (7, 1, 1), (7, 5, None))
    assert write(log, (7, 4, 9)) == Written(applied=0, late=1)
    assert content(log) == {7: (5, None)}
    write(log, (7, 6, 9))
    assert content(log) == {7: (6, 9)}


def test_a_deletion_of_an_item_nobody_knows_is_remembered(log):
    write(log, (7, 5, None))
    assert write(log, (7, 4, 1)).late == 1


def test_of_one_version_the_deletion_counts_whichever_comes_first(log):
    write(log, (1, 5, 1), (1, 5, None), (2, 5, None), (2, 5, 1))
    assert content(log) == {1: (5, None), 2: (5, None)}


@pytest.mark.parametrize("item", EXTREMES)
def test_no_item_or_version_that_int64_holds_is_mistaken_for_another(log, item):
    for older, newer in zip(EXTREMES, EXTREMES[1:], strict=False):
        assert write(log, (item, newer, 1)).applied
        assert write(log, (item, older, 2)).late
    assert content(log) == {item: (2**63 - 1, 1)}


def test_a_reader_gets_what_came_after_its_number_only(log):
    write(log, (1, 1, 1), (2, 1, 2))
    at = log.last()
    write(log, (3, 1, 3), (1, 2, 4))
    assert content(log, at) == {3: (1, 3), 1: (2, 4)}
    assert list(log.since(at).changes.item_ids) == [3, 1]
    assert log.since(at).sequence == log.last()
    assert content(log, log.last()) == {}


def test_a_late_event_gives_readers_nothing_to_do(log):
    write(log, (1, 5, 1))
    at = log.last()
    write(log, (1, 5, 1), (1, 4, 2))
    assert log.last() == at


def test_what_would_change_nothing_is_known_without_writing(log):
    write(log, (1, 5, 1), (2, 5, None), (3, -5, 1))
    asked = changes((1, 5, 1), (1, 6, 1), (1, 5, None), (2, 5, 1), (2, 6, 1), (3, -6, 1), (4, 0, 1))
    at = log.last()
    late = log.is_late(asked.item_ids, asked.versions, asked.deleted)
    assert late.tolist() == [True, False, False, True, False, True, False]
    assert log.last() == at


def test_a_log_is_no_longer_than_there_are_items(log):
    for version in range(5):
        write(log, (1, version, version), (2, version, None))
    assert sorted(log.since(0).changes.item_ids) == [1, 2]


def test_the_time_of_the_newest_record_is_kept(log):
    write(log, (1, 1, 1))
    first = log.since(0).newest_s
    write(log, (2, 1, 1))
    assert 1.7e9 < first <= log.since(0).newest_s


def test_vectors_come_back_bit_for_bit(log):
    batch = replace(changes((1, 1, 1)), vectors=np.array([[-128, 127, 0]], np.int8))
    log.write(batch, SPACE.origin)
    assert log.since(0).changes.vectors.tolist() == [[-128, 127, 0]]


def test_vectors_of_another_origin_are_refused_at_every_write(log):
    write(log, (1, 1, 1))
    said = "vectors must have the origin of the index, scl-text-1, got scl-text-2"
    with pytest.raises(InputError, match=f"^{said}$"):
        log.write(changes((2, 1, 1)), "scl-text-2")
    assert content(log) == {1: (1, 1)}


@pytest.mark.parametrize(
    ("vectors", "found"),
    [(np.ones((1, 2), np.int8), "int8 (1, 2)"), (np.ones((1, 3)), "float64 (1, 3)")],
)
def test_vectors_that_do_not_fit_are_refused(log, vectors, found):
    said = re.escape(f"vectors must be int8 (1, 3) as the index has them, got {found}")
    with pytest.raises(InputError, match=said):
        log.write(replace(changes((1, 1, 1)), vectors=vectors), SPACE.origin)


def test_a_log_is_not_taken_for_that_of_another_origin(open_log):
    write(open_log("named", SPACE), (1, 1, 1))
    with pytest.raises(InputError, match="must h.*scl-text-1.*") as refused:
        open_log("named", OTHER).write(changes((1, 2, 1), space=OTHER), OTHER.origin)
    assert "scl-text-2" in str(refused.value)
    assert content(open_log("named", SPACE)) == {1: (1, 1)}


def test_what_is_written_is_there_for_whoever_opens_the_log_next(open_log):
    first = open_log("again", SPACE)
    write(first, (1, 1, 1))
    first.close()
    second = open_log("again", SPACE)
    assert content(second) == {1: (1, 1)}
    assert write(second, (1, 1, 1)).late == 1


EVENTS = st.lists(
    st.tuples(st.integers(-2, 2), st.integers(0, 6), st.booleans()), min_size=1, max_size=30
)


@settings(max_examples=40)
@given(data=st.data(), drawn=EVENTS)
def test_any_order_and_repetition_of_events_gives_what_a_dict_of_the_newest_gives(
    new_log, data, drawn
):
    # What an event says follows from its item, version and kind: one version is one event.
    events = [(i, v, None if gone else (3 * i + 5 * v) % 11 + 1) for i, v, gone in drawn]
    newest: dict[int, tuple[int, bool, int | None]] = {}
    for item, version, fill in events:
        newest[item] = max(newest.get(item, (-1, False, 0)), (version, fill is None, fill))
    again = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events)))))
    log = new_log()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(again)), max_size=3)))
    for start, stop in zip([0, *cuts], [*cuts, len(again)], strict=True):
        write(log, *again[start:stop])
    assert content(log) == {item: (version, fill) for item, (version, _, fill) in newest.items()}
    log.close()
