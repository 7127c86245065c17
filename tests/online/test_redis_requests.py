"""Requests out of a stream on a real server: what is learned is what a folder of them teaches."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import apps.train_ranker
from tests.helpers.runs import lines_of, train_ranker
from tests.helpers.servers import REDIS, SERVERS, running
from tests.online.following import (
    ALL,
    WINDOW_S,
    deltas_of,
    follow,
    put,
    requests_of,
    same_bits,
    state_of,
    windows_of,
)
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.online.redis_requests import RedisRequests

STREAM = "clicks"
ROWS = 7  # an entry, which do not end where windows do


@pytest.fixture(scope="module")
def start(market, tmp_path_factory):
    return train_ranker(market, tmp_path_factory.mktemp("start") / "run", "id")


@pytest.fixture(params=SERVERS)
def server(request, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    with running(request.param, folder) as server:
        yield server


def client_of(server):
    from redis import Redis

    return Redis(port=server.port)


def packed(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def pieces(market) -> list[pa.Table]:
    whole = requests_of(market)
    return [whole.slice(first, ROWS) for first in range(0, len(whole), ROWS)]


def follow_stream(server, start, run_dir, *more: str):
    """Until nothing is left."""
    flags = ["--follow_redis", server.url, "--stream", STREAM, "--start_from", start]
    flags += ["--run_dir", run_dir, "--window_s", WINDOW_S, "--once", "true", "--resume", "true"]
    apps.train_ranker.main([*map(str, [*flags, "--keep_checkpoints", ALL]), *more])
    return run_dir


@pytest.mark.slow
def test_a_stream_teaches_what_a_folder_does_and_is_gone_on_with_bit_for_bit(
    server, market, start, tmp_path
):
    for number, table in enumerate(pieces(market)):
        put(tmp_path / "spool", f"{number:05d}.parquet", table)
    folder = follow(tmp_path / "spool", start, tmp_path / "of_folder")
    with client_of(server) as client:
        for number, table in enumerate(pieces(market)):
            client.xadd(STREAM, {"requests": packed(table)})
            if number == 4:
                follow_stream(server, start, tmp_path / "begun")
    for name in ("whole", "begun"):
        run_dir = follow_stream(server, start, tmp_path / name)
        assert lines_of(run_dir, "window")[-1]["duplicates"] == 0
    whole = tmp_path / "whole"
    assert same_bits(state_of(whole), state_of(folder))
    assert windows_of(whole) == windows_of(folder)
    assert deltas_of(whole) == deltas_of(folder)
    # The windows of one that stopped in between are cut where it stopped.
    learned = sum(line["requests"] for line in windows_of(tmp_path / "begun"))
    assert learned == len(requests_of(market))


@pytest.mark.parametrize("server", REDIS, indirect=True)
def test_entries_that_are_no_requests_are_set_aside_by_name_and_nothing_else_is_lost(
    server, market, start, tmp_path
):
    tables = pieces(market)
    with client_of(server) as client:
        bad = [
            client.xadd(STREAM, {"others": b"x"}).decode(),
            client.xadd(STREAM, {"requests": b"no Parquet"}).decode(),
        ]
        for table in tables:
            client.xadd(STREAM, {"requests": packed(table)})
        bad.append(client.xadd(STREAM, {"requests": packed(tables[0].drop(["labels"]))}).decode())
    run_dir = follow_stream(server, start, tmp_path / "run")
    said = {line["set_aside"]: line["reason"] for line in lines_of(run_dir, "set_aside")}
    assert [*said] == bad
    assert "must be an entry with the field requests" in said[bad[0]]
    assert f"{STREAM} {bad[1]}" in said[bad[1]] and "labels" in said[bad[2]]
    learned = sum(line["requests"] for line in windows_of(run_dir))
    assert learned == len(requests_of(market))


def reader_of(server) -> RedisRequests:
    return RedisRequests(server.url, STREAM, RequestColumns({}, {}), 10)


@pytest.mark.parametrize("server", REDIS, indirect=True)
def test_where_the_stream_was_trimmed_past_what_was_read_is_said(server, caplog):
    reader = reader_of(server)
    with client_of(server) as client:
        first, second = (client.xadd(STREAM, {"requests": b"x"}).decode() for _ in range(2))
        assert reader.after([]) == [first, second]
        for _ in range(2):  # while nothing new comes
            assert reader.after([first, second]) == []
        others = [client.xadd(STREAM, {"requests": b"x"}).decode() for _ in range(3)]
        assert reader.after([first, second]) == others and not caplog.messages
        client.xtrim(STREAM, minid=others[-1], approximate=False)
        assert reader.after([second]) == others[-1:]
    (said,) = caplog.messages
    assert f"{STREAM} has no entry {second} any more" in said


@pytest.mark.parametrize("server", REDIS, indirect=True)
def test_all_of_a_long_stream_is_found_in_order(server):
    reader, found = reader_of(server), []
    with client_of(server) as client:
        names = [client.xadd(STREAM, {"requests": b"x"}).decode() for _ in range(40)]
    while more := reader.after(found):
        found += more
    assert found == names and reader.kept(found) == (names[-1],)


@pytest.mark.parametrize("server", REDIS, indirect=True)
def test_what_a_server_refuses_is_no_reason_to_wait(server, start, tmp_path, refused):
    flags = ["--follow_redis", server.url, "--stream", STREAM, "--start_from", start]
    with client_of(server) as client:
        client.set(STREAM, "no stream")
        line = refused(apps.train_ranker.main, [*flags, "--run_dir", tmp_path / "run"])
        assert f"must be a server with a stream {STREAM}" in line and "WRONGTYPE" in line
        client.config_set("requirepass", "secret")
    line = refused(apps.train_ranker.main, [*flags, "--run_dir", tmp_path / "other"])
    assert f"must be a server with a stream {STREAM}" in line


@pytest.mark.parametrize("server", REDIS, indirect=True)
def test_a_place_in_one_source_is_none_in_another(server, market, start, tmp_path, refused):
    with client_of(server) as client:
        client.xadd(STREAM, {"requests": packed(requests_of(market))})
    run_dir = follow_stream(server, start, tmp_path / "run")
    put(tmp_path / "spool", "a.parquet", requests_of(market))
    folder = follow(tmp_path / "spool", start, tmp_path / "of_folder")
    more = ["--start_from", start, "--resume", "true", "--once", "true", "--window_s", WINDOW_S]
    more += ["--keep_checkpoints", ALL]
    of_server = ["--follow_redis", server.url, "--stream"]
    for flags, run, said in (
        (["--follow", tmp_path / "spool"], run_dir, "follow_redis must be given to go on with"),
        ([*of_server, STREAM], folder, "follow must be given to go on with"),
        ([*of_server, "others"], run_dir, "stream"),
    ):
        line = refused(apps.train_ranker.main, [*flags, "--run_dir", run, *more])
        assert said in line


@pytest.mark.parametrize("server", REDIS, indirect=True)
def test_a_server_that_is_not_there_ends_who_only_wanted_what_is_there(
    server, start, tmp_path, refused
):
    server.kill()
    flags = ["--follow_redis", server.url, "--start_from", start, "--once", "true"]
    line = refused(apps.train_ranker.main, [*flags, "--run_dir", tmp_path / "run"])
    assert f"{server.url} cannot be reached" in line


def test_a_folder_and_a_server_are_not_followed_at_once(start, tmp_path, refused):
    flags = ["--follow", tmp_path, "--follow_redis", "redis://127.0.0.1:1/0", "--start_from", start]
    line = refused(apps.train_ranker.main, [*flags, "--run_dir", tmp_path / "run"])
    assert "follow must not be given with follow_redis" in line


def test_a_url_of_no_such_server_is_refused(start, tmp_path, refused):
    flags = ["--follow_redis", "http://127.0.0.1", "--start_from", start]
    line = refused(apps.train_ranker.main, [*flags, "--run_dir", tmp_path / "run"])
    assert "follow_redis must be redis://HOST:PORT/DB, got http://127.0.0.1" in line
