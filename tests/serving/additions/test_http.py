"""POST /behaviours: what it takes, and that requests are then scored by it."""

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from tests.helpers.forks import wait_until
from tests.helpers.kinds_market import write_kinds_market
from tests.helpers.runs import train_ranker
from tests.helpers.small_market import ITEM_IDS
from tests.serving.served import scorer_of, table_of
from tests.serving.test_app import SETTINGS
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving import wire
from torchrec_mm.serving.additions.body import kinds_of
from torchrec_mm.serving.additions.lists import AddedLists
from torchrec_mm.serving.additions.store import AddedBehaviours, Unkept
from torchrec_mm.serving.app import make_app
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.measures import Measures

USER, T = 4242, 1_700_000_000
OF_BEHAVIOURS = ("behaviour_item_ids", "stars", "action", "via")
DONE = {
    "user_id": USER,
    "behaviour_item_ids": [11, -12, 13],
    "behaviour_timestamps": [T, T + 10, T + 20],
    "stars": [1, 2, 3],
    "action": [0, None, 2],
    "via": ["mail", None, "Übrig"],
}


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return write_kinds_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def run_dir(market, tmp_path_factory) -> Path:
    return train_ranker(market, tmp_path_factory.mktemp("served") / "run", "id")


@pytest.fixture(scope="module")
def scorer(run_dir):
    return scorer_of(run_dir)


@pytest.fixture(scope="module")
def bare(scorer, market) -> dict:
    """A request without user, time and behaviours."""
    (row,) = table_of(scorer, market.data / "requests" / "test").to_pylist()[:1]
    left = {"user_id", "timestamp", *OF_BEHAVIOURS}
    return {name: value for name, value in row.items() if name not in left and value is not None}


@contextmanager
def served(run_dir: Path, scorer, folder: Path, histories: Path | None = None):
    """A client of a server that takes behaviours, and the histories that it scores by."""
    measures, columns = Measures(), scorer.encoder.columns
    current = Current(TrainedRun.open(run_dir, "latest"), lambda run: scorer, measures)
    kinds = kinds_of(columns)
    store = AddedBehaviours(folder, kinds, 50)
    added = AddedLists(store, kinds)
    known = Histories.none(columns, added)
    if histories:
        known = Histories.open(histories, columns, added)
    with TestClient(make_app(current, SETTINGS, measures, known, store=store)) as client:
        client.known, client.store = known, store
        yield client


def post(client: TestClient, *rows: dict) -> dict:
    said = client.post("/behaviours", json={"behaviours": rows} if len(rows) > 1 else rows[0])
    assert said.status_code == 200, said.text
    return said.json()


def history(client: TestClient, **request: object) -> dict[str, list]:
    """The lists that a request of USER is filled with."""
    table = pa.Table.from_pylist([{"user_id": USER} | request])
    (row,) = client.known.fill(table).to_pylist()
    return {name: row[name] for name in OF_BEHAVIOURS}


def test_a_request_is_scored_by_what_was_added_as_if_it_brought_it(run_dir, scorer, bare, tmp_path):
    done = DONE | {"behaviour_item_ids": ITEM_IDS[5:8].tolist()}
    with served(run_dir, scorer, tmp_path) as client:
        assert post(client, done) == {"added": 3, "known": 0, "older": 0}
        brought = {name: done[name] for name in OF_BEHAVIOURS}
        assert history(client) == brought
        asked = [bare | {"user_id": USER}, bare | {"user_id": USER} | brought]
        said = client.post("/score", json={"requests": [*asked, bare | {"user_id": USER + 1}]})
        stored, sent, without = said.json()["click_probabilities"]
        assert stored == pytest.approx(sent, abs=1e-6)
        assert stored != pytest.approx(without, abs=2e-6)
        assert 'torchrec_mm_behaviours_total{outcome="added"} 3.0' in client.get("/metrics").text


def test_arrow_adds_the_same_and_what_comes_again_changes_nothing(run_dir, scorer, tmp_path):
    sink = io.BytesIO()
    table = pa.Table.from_pylist([DONE])
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    with served(run_dir, scorer, tmp_path) as client:
        kind = {"content-type": wire.ARROW}
        said = client.post("/behaviours", content=sink.getvalue(), headers=kind)
        assert said.json() == {"added": 3, "known": 0, "older": 0}
        before = history(client)
        changed = DONE | {"stars": [7, 7, 7]}
        assert post(client, DONE, changed) == {"added": 0, "known": 6, "older": 0}
        assert history(client) == before == {name: DONE[name] for name in OF_BEHAVIOURS}


def test_behaviours_of_later_than_the_request_do_not_count(run_dir, scorer, tmp_path):
    with served(run_dir, scorer, tmp_path) as client:
        post(client, DONE)
        assert history(client, timestamp=T + 10)["behaviour_item_ids"] == [11]
        assert history(client, timestamp=T + 11)["via"] == ["mail", None]
        assert history(client, behaviour_item_ids=[5])["behaviour_item_ids"] == [5]


def write_history(folder: Path, timestamp: int | None) -> Path:
    """A folder of histories: the first two behaviours of DONE, whole up to a time."""
    folder.mkdir()
    known = {name: DONE[name][:2] for name in OF_BEHAVIOURS} | {"user_id": USER}
    table = pa.Table.from_pylist([known | {"timestamp": timestamp}])
    lists = dict.fromkeys(OF_BEHAVIOURS, pa.list_(pa.int64())) | {"via": pa.list_(pa.string())}
    schema = pa.schema(lists | {"user_id": pa.int64(), "timestamp": pa.int64()})
    pq.write_table(table.cast(schema), folder / "part.parquet")
    return folder


def test_what_comes_follows_what_was_known_but_for_what_is_in_it_already(run_dir, scorer, tmp_path):
    for timestamp, follows in ((T + 10, [13]), (None, [11, -12, 13])):
        folder = write_history(tmp_path / f"{timestamp}", timestamp)
        with served(run_dir, scorer, tmp_path / "added", folder) as client:
            post(client, DONE)
            assert history(client)["behaviour_item_ids"] == [11, -12, *follows]
            assert len(history(client)["via"]) == 2 + len(follows)


@pytest.mark.parametrize("timestamp", [T + 10, None])
def test_a_user_who_was_deleted_has_no_history_not_even_a_folders(
    run_dir, scorer, bare, tmp_path, timestamp
):
    folder, added = write_history(tmp_path / "known", timestamp), tmp_path / "added"
    empty = dict.fromkeys(OF_BEHAVIOURS, [])
    with served(run_dir, scorer, added, folder) as client:
        other = DONE | {"user_id": USER + 1}
        post(client, DONE, other)
        said = client.delete(f"/behaviours/{USER}")
        assert said.status_code == 200 and said.json() == {"deleted": 3}
        assert history(client) == empty
        assert history(client, behaviour_item_ids=[5])["behaviour_item_ids"] == [5]
        assert history(client, user_id=USER + 1)["stars"] == [1, 2, 3]
        assert post(client, DONE) == {"added": 0, "known": 0, "older": 3}
        asked = {"requests": [bare | {"user_id": USER}, bare | {"user_id": USER} | empty]}
        deleted, without = client.post("/score", json=asked).json()["click_probabilities"]
        assert deleted == without
    with served(run_dir, scorer, added, folder) as client:
        assert history(client) == empty
        later = DONE | {"behaviour_timestamps": [2**32, 2**32 + 1, 2**32 + 2]}
        assert post(client, later)["added"] == 3
        assert history(client)["behaviour_item_ids"] == DONE["behaviour_item_ids"]


def test_a_folder_that_was_written_after_a_deletion_counts_again(run_dir, scorer, tmp_path):
    with served(run_dir, scorer, tmp_path / "added") as client:
        client.delete(f"/behaviours/{USER}")
    folder = write_history(tmp_path / "known", 2**32)
    with served(run_dir, scorer, tmp_path / "added", folder) as client:
        assert history(client)["behaviour_item_ids"] == [11, -12]


@pytest.mark.parametrize("user", ["x", "1.5", f"{2**63}", "1" * 5000, "-", "٣", "+1"])
def test_who_is_no_user_is_not_deleted(run_dir, scorer, tmp_path, user):
    with served(run_dir, scorer, tmp_path) as client:
        answer = client.delete(f"/behaviours/{user}")
        assert answer.status_code == 422
        assert "user_id must be a whole number" in answer.json()["error"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"user_id": None}, "addition 0 must have user_id"),
        ({"stars": [1]}, "stars must be as long as behaviour_item_ids, row 0 has 1 and 3"),
        ({"behaviour_timestamps": [T]}, "behaviour_timestamps must be as long as"),
        ({"behaviour_timestamps": [T * 1000] * 3}, "which looks like milliseconds"),
        ({"behaviour_item_ids": [1, None, 2]}, "behaviour_item_ids must not hold nulls"),
        ({"behaviour_item_ids": [1, "x", 2]}, "behaviour_item_ids must be list"),
        ({"candidate_item_ids": [1]}, "addition 0 must have columns that the ranker reads"),
        ({"behaviour_item_ids": list(range(1001))}, "behaviour_item_ids must be at most 1000 long"),
    ],
)
def test_what_could_be_taken_wrongly_is_refused_whole(run_dir, scorer, tmp_path, changed, said):
    with served(run_dir, scorer, tmp_path) as client:
        good = DONE | {"user_id": USER + 1}
        answer = client.post("/behaviours", json={"behaviours": [DONE | changed, good]})
        assert answer.status_code == 422
        assert said in answer.json()["error"] and "\n" not in answer.json()["error"]
        assert history(client, user_id=USER + 1)["stars"] == []


def test_where_nothing_can_be_written_scoring_goes_on(run_dir, scorer, bare, tmp_path, monkeypatch):
    def full(self, bodies):
        raise Unkept("behaviours could not be written: No space left on device")

    with served(run_dir, scorer, tmp_path) as client:
        with monkeypatch.context() as patched:
            patched.setattr(AddedBehaviours, "write", full)
            answer = client.post("/behaviours", json=DONE)
        assert answer.status_code == 503 and "No space left" in answer.json()["error"]
        assert client.post("/score", json=bare | {"user_id": USER}).status_code == 200
        assert post(client, DONE)["added"] == 3


def test_bodies_that_come_while_one_is_written_are_written_together(
    run_dir, scorer, tmp_path, monkeypatch
):
    go, sizes, whole = Event(), [], AddedBehaviours.write

    def add(self, bodies):
        sizes.append(len(bodies))
        go.wait(60)
        return whole(self, bodies)

    monkeypatch.setattr(AddedBehaviours, "write", add)
    with served(run_dir, scorer, tmp_path) as client, ThreadPoolExecutor(8) as clients:
        first = clients.submit(post, client, DONE)
        wait_until(lambda: sizes == [1])
        others = [
            clients.submit(post, client, DONE | {"user_id": user, "action": [user] * 3})
            for user in range(6)
        ]
        commits = client.app.state.commits
        wait_until(lambda: commits.waiting == 6)
        go.set()
        assert [each.result()["added"] for each in (first, *others)] == [3] * 7
    assert sizes == [1, 6]


def test_the_route_is_described_where_it_is_and_absent_where_it_is_not(run_dir, scorer, tmp_path):
    with served(run_dir, scorer, tmp_path) as client:
        paths = client.get("/openapi.json").json()["paths"]
        body = paths["/behaviours"]["post"]["requestBody"]["content"][wire.JSON]["schema"]
        one, several = body["oneOf"]
        assert one["properties"].keys() == DONE.keys() and one["required"] == ["user_id"]
        assert several["properties"]["behaviours"]["items"] == one
        (user,) = paths["/behaviours/{user_id}"]["delete"]["parameters"]
        assert user["schema"]["type"] == "integer" and user["required"]
    measures = Measures()
    current = Current(TrainedRun.open(run_dir, "latest"), lambda run: scorer, measures)
    none = Histories.none(scorer.encoder.columns)
    with TestClient(make_app(current, SETTINGS, measures, none)) as client:
        assert client.post("/behaviours", json=DONE).status_code == 404
        assert client.delete(f"/behaviours/{USER}").status_code == 404
        assert not [p for p in client.get("/openapi.json").json()["paths"] if "behaviours" in p]
