"""Pieces worked on by several threads come as a chain of them would."""

from itertools import chain, count
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.columns import ahead
from torchrec_mm.columns.ahead import in_order


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch) -> int:
    monkeypatch.setattr(ahead.pa, "cpu_count", lambda: request.param)
    return request.param


@given(
    pieces=st.lists(st.lists(st.integers(), max_size=5), max_size=8),
    at_once=st.integers(1, 3),
    cores=st.integers(1, 4),
)
def test_values_come_piece_by_piece(pieces, at_once, cores):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead.pa, "cpu_count", lambda: cores)
        assert list(in_order(map(iter, pieces), at_once)) == [*chain(*pieces)]


def test_pieces_are_worked_on_at_the_same_time(monkeypatch):
    monkeypatch.setattr(ahead.pa, "cpu_count", lambda: 2)
    other_began = Event()

    def first():
        assert other_began.wait(timeout=60)
        yield 1

    def second():
        other_began.set()
        yield 2

    assert list(in_order(iter([first(), second()]))) == [1, 2]


def test_no_more_threads_work_than_are_allowed(monkeypatch):
    monkeypatch.setattr(ahead.pa, "cpu_count", lambda: 64)
    opened = count()
    values = in_order(iter([next(opened)]) for _ in range(100))
    assert next(values) == 0
    assert next(opened) == ahead.MOST_THREADS


def test_no_piece_gets_further_ahead_than_it_may(threads):
    made = []
    values = in_order((iter(made.append(value) or value for value in range(100)) for _ in "a"), 3)
    assert [next(values) for _ in range(4)] == [0, 1, 2, 3]
    values.close()
    assert len(made) <= 9


def test_what_a_piece_raises_is_raised_in_its_turn(threads):
    def broken(name):
        yield name
        raise ValueError(name)

    values = in_order(iter([iter("a"), broken("b"), broken("c")]))
    assert [next(values), next(values)] == ["a", "b"]
    with pytest.raises(ValueError, match="b"):
        next(values)


def test_who_takes_no_more_leaves_no_thread_at_work(threads):
    begun = []

    def piece(number):
        begun.append(number)
        yield number

    values = in_order(piece(number) for number in range(100))
    assert next(values) == 0
    values.close()
    assert len(begun) <= threads + 1
