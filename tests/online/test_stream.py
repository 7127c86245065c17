"""Requests in files become windows: each once, whatever the files, their order, the stops."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.online.following import put
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.errors import InputError
from torchrec_mm.online import stream as module
from torchrec_mm.online.remembered import Remembered
from torchrec_mm.online.spool import RequestSpool
from torchrec_mm.online.stream import Stream, Window
from torchrec_mm.online.stream_state import StreamState

WINDOW_S = 10
NONE = np.empty(0, np.int64)


def table_of(times: list[int], users: list[int] | None = None) -> pa.Table:
    """Of each request a time, and a user of its own unless told otherwise."""
    users = [*range(len(times))] if users is None else users
    lists = pa.array([[1, 2]] * len(times), pa.list_(pa.int64()))
    labels = pa.array([[0, 1]] * len(times), pa.list_(pa.int8()))
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "timestamp": pa.array(times, pa.int64()),
            "behaviour_item_ids": lists,
            "candidate_item_ids": lists,
            "labels": labels,
        }
    )


def stream_of(spool: Path, state: StreamState | None = None, remembered=NONE) -> Stream:
    columns = RequestColumns({}, {})
    problems: list[tuple[str, str]] = []
    source = RequestSpool(spool, columns, 10)
    state = state or StreamState()
    stream = Stream(source, WINDOW_S, state, remembered, lambda *said: problems.append(said))
    stream.problems = problems
    return stream


def rest_of(stream: Stream) -> list[Window]:
    found = []
    while (window := stream.next_window(True, lambda: None)) is not None:
        found.append(window)
    return found


def times_of(window: Window) -> list[int]:
    return np.concatenate([part.timestamps for part in window.parts]).tolist()


def oracle(times: list[int]) -> list[tuple[int, list[int], int]]:
    """Start, times and number of late ones of each window, a request after the other."""
    windows: list[tuple[int, list[int], int]] = []
    start = None
    for second in times:
        own = second // WINDOW_S * WINDOW_S
        if start is None or own > start:
            start = own
            windows.append((start, [], 0))
        begin, held, late = windows[-1]
        windows[-1] = (begin, [*held, second], late + (own < start))
    return windows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    times=st.lists(st.integers(-50, 100), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 30)),
)
def test_windows_are_those_of_a_reader_row_by_row(times, cuts, worker, tmp_path_factory):
    spool = tmp_path_factory.mktemp("spool")
    whole = table_of(times)
    bounds = sorted({0, len(times), *(cut for cut in cuts if cut < len(times))})
    for first, end in zip(bounds, bounds[1:], strict=False):
        put(spool, f"{first:03d}.parquet", whole.slice(first, end - first))
    windows = rest_of(stream_of(spool))
    assert [(w.start, times_of(w), w.late) for w in windows] == oracle(times)
    assert windows[-1].state.requests == len(times)
    for number, window in enumerate(windows):  # from each checkpoint on, the rest is the same
        remembered = Remembered()
        for before in windows[: number + 1]:
            for part in before.parts:
                remembered.are_new(part)
        again = rest_of(stream_of(spool, window.state, remembered.keys()))
        assert [times_of(w) for w in again] == [times_of(w) for w in windows[number + 1 :]]
        assert [w.state for w in again] == [w.state for w in windows[number + 1 :]]


def test_the_same_request_again_is_left_out_whatever_its_labels(worker, tmp_path):
    first = table_of([1, 1, 2], [7, 8, 7])
    again = first.set_column(4, "labels", pa.array([[1, 1]] * 3, pa.list_(pa.int8())))
    put(tmp_path, "0.parquet", first)
    put(tmp_path, "1.parquet", pa.concat_tables([again, table_of([2], [8])]))
    (window,) = rest_of(stream_of(tmp_path))
    assert (len(times_of(window)), window.duplicates) == (4, 3)
    assert window.parts[0].labels.tolist() == [0, 1] * 3


def test_only_the_last_requests_are_remembered(monkeypatch, worker, tmp_path):
    monkeypatch.setattr("torchrec_mm.online.remembered.MOST", 2)
    put(tmp_path, "0.parquet", table_of([1, 2, 3, 1, 3], [1, 2, 3, 1, 3]))
    stream = stream_of(tmp_path)
    (window,) = rest_of(stream)
    assert times_of(window) == [1, 2, 3, 1]  # the first was forgotten, the third was not
    assert len(stream.remembered.keys()) == 2


def test_a_window_of_nothing_but_duplicates_is_none(worker, tmp_path):
    put(tmp_path, "0.parquet", table_of([1, 25], [1, 2]))
    put(tmp_path, "1.parquet", table_of([25, 31], [2, 3]))
    windows = rest_of(stream_of(tmp_path))
    assert [times_of(w) for w in windows] == [[1], [25], [31]]
    assert [w.duplicates for w in windows] == [0, 1, 0]


def test_a_file_that_comes_with_an_earlier_name_is_read_all_the_same(worker, tmp_path):
    put(tmp_path, "b.parquet", table_of([1], [1]))
    stream = stream_of(tmp_path)
    (first,) = rest_of(stream)
    put(tmp_path, "a.parquet", table_of([2], [2]))
    (second,) = rest_of(stream)
    assert times_of(second) == [2] and second.state.done == ("b.parquet", "a.parquet")


def test_files_that_are_gone_are_forgotten(worker, tmp_path):
    first = put(tmp_path, "a.parquet", table_of([1], [1]))
    stream = stream_of(tmp_path)
    rest_of(stream)
    first.unlink()
    put(tmp_path, "b.parquet", table_of([2], [2]))
    rest_of(stream)
    assert stream.state.done == ("b.parquet",)


def test_a_window_waits_for_a_request_of_a_later_one(worker, tmp_path):
    class Enough(Exception):
        pass

    looks = []

    def check() -> None:
        looks.append(None)
        if len(looks) == 2:
            put(tmp_path, "1.parquet", table_of([5, 12], [5, 6]))
        if len(looks) > 3:
            raise Enough

    put(tmp_path, "0.parquet", table_of([1]))
    stream = stream_of(tmp_path)
    window = stream.next_window(False, check)
    assert times_of(window) == [1, 5] and len(looks) == 2
    assert (stream.state.file, stream.state.row) == ("1.parquet", 1)
    with pytest.raises(Enough):
        stream.next_window(False, check)


def test_a_file_that_lost_requests_since_is_set_aside(worker, tmp_path):
    put(tmp_path, "0.parquet", table_of([1, 12, 13]))
    stream = stream_of(tmp_path)
    window = stream.next_window(True, lambda: None)
    assert (window.state.file, window.state.row) == ("0.parquet", 1)
    put(tmp_path, "0.parquet", table_of([1]).slice(0, 0))
    again = stream_of(tmp_path, window.state)
    assert rest_of(again) == []
    ((name, _),) = again.problems
    assert name == "0.parquet" and again.state.set_aside == 1


def test_a_spool_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="follow must be a folder of requests"):
        RequestSpool(tmp_path / "none", RequestColumns({}, {}), 10)


class Away(RequestSpool):
    """A folder that cannot be reached the first times that it is asked, and that it is read."""

    def __init__(self, folder: Path, times: int) -> None:
        super().__init__(folder, RequestColumns({}, {}), 10)
        self.asked, self.reads = times, times

    def after(self, done):
        self.asked -= 1
        if self.asked >= 0:
            raise ConnectionError("the folder cannot be reached")
        return super().after(done)

    def read(self, name):
        self.reads -= 1
        if self.reads >= 0:
            raise ConnectionError("the folder cannot be read")
        return super().read(name)


def test_a_source_that_is_away_is_waited_for_and_said_once(worker, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    put(tmp_path, "a.parquet", table_of([0, 1, 100]))
    stream = stream_of(tmp_path)
    stream.source = Away(tmp_path, 2)
    window = stream.next_window(False, lambda: None)
    assert times_of(window) == [0, 1]
    assert not stream.problems and stream.state.set_aside == 0
    assert len([said for said in caplog.messages if "cannot be rea" in said]) == 1


def test_a_source_that_is_away_ends_who_does_not_wait(worker, tmp_path):
    stream = stream_of(tmp_path)
    stream.source = Away(tmp_path, 1)
    with pytest.raises(InputError, match="the folder cannot be reached"):
        stream.next_window(True, lambda: None)
