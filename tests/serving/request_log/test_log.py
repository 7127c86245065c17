"""The log holds what was scored, as training reads it, and never stands in the way of an answer."""

import errno
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.forks import wait_until
from tests.serving.request_log.logging_server import KEPT_BEHAVIOURS, log_of, logged, post, served
from torchrec_mm.errors import InputError
from torchrec_mm.serving import wire
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.request_log import writer
from torchrec_mm.serving.request_log.rows import LogRows


def test_the_log_holds_requests_as_they_were_asked_and_what_was_answered(
    run_dir, scorer, asked, tmp_path
):
    ids = [f"{row:03}" for row in range(len(asked))]
    with served(run_dir, scorer, tmp_path / "log") as client:
        said = post(client, asked, request_id=ids)
    rows = logged(tmp_path / "log")
    assert said["request_ids"] == ids == [row["request_id"] for row in rows]
    for row, wanted, found in zip(
        rows, asked.to_pylist(), said["click_probabilities"], strict=True
    ):
        assert row["click_probabilities"] == pytest.approx(found, abs=1e-7)
        assert row["served_by"] == said["checkpoint"] and row["served_at"] > 1.7e9
        for name in ("behaviour_item_ids", "stars", "action", "via"):
            wanted[name] = wanted[name][-KEPT_BEHAVIOURS:]
        assert {name: row[name] for name in wanted} == wanted


def test_json_and_arrow_are_logged_alike(run_dir, scorer, asked, tmp_path):
    with served(run_dir, scorer, tmp_path / "json") as client:
        post(client, asked)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, asked.schema) as stream:
        stream.write_table(asked)
    with served(run_dir, scorer, tmp_path / "arrow") as client:
        kind = {"content-type": wire.ARROW}
        said = client.post("/score", content=sink.getvalue(), headers=kind)
        ids = pa.ipc.open_stream(said.content).read_all()["request_id"].to_pylist()
    by_json, by_arrow = (pq.read_table(tmp_path / kind) for kind in ("json", "arrow"))
    assert by_arrow["request_id"].to_pylist() == ids
    assert by_json.schema == by_arrow.schema
    own = ["request_id", "served_at"]
    assert by_json.drop_columns(own) == by_arrow.drop_columns(own)


def test_a_request_without_behaviours_or_time_is_logged_with_those_it_was_scored_by(
    run_dir, scorer, asked, tmp_path
):
    known = asked.slice(0, 1).select(["user_id", "behaviour_item_ids", "stars", "action", "via"])
    (tmp_path / "histories").mkdir()
    pq.write_table(known, tmp_path / "histories" / "part.parquet")
    histories = Histories.open(tmp_path / "histories", scorer.encoder.columns)
    bare = asked.slice(0, 1).drop_columns([*known.column_names[1:], "timestamp"])
    with served(run_dir, scorer, tmp_path / "log", histories) as client:
        post(client, bare)
    (row,) = logged(tmp_path / "log")
    (wanted,) = known.to_pylist()
    assert row["behaviour_item_ids"] == wanted["behaviour_item_ids"][-KEPT_BEHAVIOURS:] != []
    assert row["via"] == wanted["via"][-KEPT_BEHAVIOURS:]
    assert row["timestamp"] == row["served_at"]


def test_a_request_is_in_a_file_after_its_time_while_the_server_goes_on(
    run_dir, scorer, asked, tmp_path
):
    with served(run_dir, scorer, tmp_path, seconds=0.01) as client:
        for count in (1, 2):
            post(client, asked.slice(0, 1))
            wait_until(lambda count=count: len([*tmp_path.glob("*.parquet")]) == count)
        said = 'logged_requests_total{outcome="written"} 2.0'  # once the file is there
        wait_until(lambda: said in client.get("/metrics").text)


def test_a_file_does_not_wait_for_its_time_once_it_is_large(
    run_dir, scorer, asked, tmp_path, monkeypatch
):
    monkeypatch.setattr(writer, "FILE_BYTES", 1)
    with served(run_dir, scorer, tmp_path) as client:
        post(client, asked)
        wait_until(lambda: [*tmp_path.glob("*.parquet")])


def test_where_the_disk_is_full_scoring_goes_on_and_what_waits_is_written_later(
    run_dir, scorer, asked, tmp_path, monkeypatch
):
    whole, is_full = writer.write_table, True

    def write(path: Path, table: pa.Table) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, table)

    monkeypatch.setattr(writer, "write_table", write)
    monkeypatch.setattr(writer, "RETRY_S", 0.01)
    with served(run_dir, scorer, tmp_path, seconds=0.01) as client:
        post(client, asked.slice(0, 1))
        wait_until(lambda: "log_failures_total 2.0" in client.get("/metrics").text)
        post(client, asked.slice(1, 1))
        assert not [*tmp_path.iterdir()]
        is_full = False
        wait_until(lambda: "log_waiting_bytes 0.0" in client.get("/metrics").text)
    assert len(logged(tmp_path)) == 2


def test_what_cannot_be_a_row_keeps_no_other_request_from_the_log(
    run_dir, scorer, asked, tmp_path, monkeypatch
):
    whole = LogRows.__call__

    def rows(self, answers):
        if any(answered.request_ids == ["broken"] for answered in answers):
            raise pa.ArrowInvalid("what no test foresaw")
        return whole(self, answers)

    monkeypatch.setattr(LogRows, "__call__", rows)
    with served(run_dir, scorer, tmp_path) as client:
        for name in ("one", "broken", "other"):
            post(client, asked.slice(0, 1), request_id=[name])
    assert [row["request_id"] for row in logged(tmp_path)] == ["one", "other"]


def test_what_is_more_than_may_wait_is_dropped_and_counted(
    run_dir, scorer, asked, tmp_path, monkeypatch
):
    with served(run_dir, scorer, tmp_path) as client:
        post(client, asked.slice(0, 2))
        monkeypatch.setattr(writer, "WAITING_BYTES", 1)
        post(client, asked)
        page = client.get("/metrics").text
    assert f'logged_requests_total{{outcome="dropped"}} {float(len(asked))}' in page
    assert len(logged(tmp_path)) == 2


def test_a_share_of_the_requests_is_kept_whole_and_a_request_asked_again_has_the_same_lot(
    run_dir, scorer, asked, tmp_path
):
    ids = [[f"{time}-{row}" for row in range(len(asked))] for time in range(8)]
    for folder in ("once", "again"):
        with served(run_dir, scorer, tmp_path / folder, share=0.5) as client:
            said = [post(client, asked, request_id=each) for each in ids]
    once, again = (logged(tmp_path / folder) for folder in ("once", "again"))
    kept = [row["request_id"] for row in once]
    assert kept == [row["request_id"] for row in again]
    assert 0.3 < len(kept) / (8 * len(asked)) < 0.7
    answered = {
        name: found
        for one in said
        for name, found in zip(one["request_ids"], one["click_probabilities"], strict=True)
    }
    for row in once:
        assert row["click_probabilities"] == pytest.approx(answered[row["request_id"]], abs=1e-6)
        place = int(row["request_id"].partition("-")[2])
        assert row["candidate_item_ids"] == asked["candidate_item_ids"][place].as_py()


def test_a_folder_of_other_columns_is_refused(scorer, tmp_path):
    pq.write_table(pa.table({"user_id": [1]}), tmp_path / "part.parquet")
    with pytest.raises(InputError, match="log must be a folder of requests with the columns"):
        log_of(scorer, tmp_path)


def test_what_a_killed_server_left_half_written_is_removed(scorer, tmp_path):
    (tmp_path / ".0001.parquet.abcdefgh").write_bytes(b"PAR1")
    log_of(scorer, tmp_path)
    assert not [*tmp_path.iterdir()]
