"""A folder of item events: every file once, in the order of names, whatever is killed."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.errors import InputError
from torchrec_mm.near_line.source import Message
from torchrec_mm.near_line.spool import Spool


def put(folder, name: str, *rows) -> None:
    """A file of JSON lines; text goes there as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("".join(f"{line}\n" for line in lines))


def take(spool: Spool, most: int = 100) -> list[Message]:
    """All that is there."""
    messages = []
    while more := spool.poll(most, 0.0):
        messages += more
    return messages


def items(messages: list[Message]) -> list[object]:
    return [message.fields.get("item_id") for message in messages]


def test_files_are_read_in_the_order_of_their_names_each_once(tmp_path):
    put(tmp_path, "b.jsonl", {"item_id": 3})
    put(tmp_path, "a.jsonl", {"item_id": 1}, "", {"item_id": 2})
    spool = Spool(tmp_path, "all")
    assert items(take(spool, 1)) == [1, 2, 3]
    put(tmp_path, "aa.jsonl", {"item_id": 4})
    assert items(take(spool)) == [4]
    assert take(spool) == []


def test_parquet_files_and_json_lines_are_read_alike(tmp_path):
    rows = {"item_id": [1, 2], "version": [1, 1], "title": ["a", None], "image": [None, b"x"]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    first, second = take(Spool(tmp_path, "all"))
    assert first.fields == {"item_id": 1, "version": 1, "title": "a", "image": None}
    assert second.fields["image"] == b"x"
    assert first.sent_s == (tmp_path / "a.parquet").stat().st_mtime


def test_a_file_is_done_with_when_all_of_it_is_acknowledged(tmp_path):
    put(tmp_path, "a.jsonl", {"item_id": 1}, {"item_id": 2})
    put(tmp_path, "b.jsonl", {"item_id": 3})
    spool = Spool(tmp_path, "all")
    messages = take(spool)
    assert spool.waiting() == 2
    spool.acknowledge(messages[1:])
    assert spool.waiting() == 1
    assert items(take(Spool(tmp_path, "all"))) == [1, 2]  # as after a kill
    spool.acknowledge(messages[:1])
    assert spool.waiting() == 0
    assert take(Spool(tmp_path, "all")) == []


def test_a_file_that_is_read_in_part_is_not_done_with(tmp_path):
    put(tmp_path, "a.jsonl", {"item_id": 1}, {"item_id": 2})
    spool = Spool(tmp_path, "all")
    spool.acknowledge(spool.poll(1, 0.0))
    assert items(take(Spool(tmp_path, "all"))) == [1, 2]
    spool.acknowledge(take(spool))
    assert take(Spool(tmp_path, "all")) == []


def test_another_reader_gets_all_files(tmp_path):
    put(tmp_path, "a.jsonl", {"item_id": 1})
    spool = Spool(tmp_path, "old")
    spool.acknowledge(take(spool))
    assert items(take(Spool(tmp_path, "new"))) == [1]


def test_files_that_are_not_whole_yet_are_left_alone(tmp_path):
    put(tmp_path, ".a.jsonl.tmp", {"item_id": 1})
    put(tmp_path, ".b.jsonl", {"item_id": 1})
    assert take(Spool(tmp_path, "all")) == []


def test_what_cannot_be_read_is_broken_and_harms_no_other(tmp_path):
    put(tmp_path, "a.jsonl", "{", "[1]", {"item_id": 1})
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    put(tmp_path, "c.jsonl", {"item_id": 2})
    messages = take(Spool(tmp_path, "all"))
    assert items(messages) == [None, None, 1, None, 2]
    broken = [message.broken.partition(":")[0] for message in messages]
    assert broken == [
        "event must be JSON",
        "event must be a JSON object",
        "",
        "file must be readable",
        "",
    ]


def test_what_is_buried_is_kept_with_its_place_and_the_reason(tmp_path):
    rows = {"item_id": [1], "image": [b"x"]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    spool = Spool(tmp_path, "all")
    (message,) = take(spool)
    spool.bury(message, "why")
    (line,) = (tmp_path / ".dead" / "all.jsonl").read_text().splitlines()
    fields = {"item_id": 1, "image": "eA=="}
    assert json.loads(line) == {"file": "a.parquet", "row": 0, "reason": "why", "fields": fields}
    assert take(Spool(tmp_path, "all")) == []


def test_an_empty_file_is_done_with(tmp_path):
    put(tmp_path, "a.jsonl")
    assert take(Spool(tmp_path, "all")) == []
    assert (tmp_path / ".done" / "all").read_text() == "a.jsonl\n"


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="events must be a folder of item events"):
        Spool(tmp_path / "none", "all")
