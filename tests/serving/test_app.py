"""The server over HTTP: scores, refusals in one line, another checkpoint while it goes on."""

import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from tests.helpers.runs import train_ranker
from tests.serving.served import MOST, parsed, scorer_of, table_of
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving import app, wire
from torchrec_mm.serving.app import ServingSettings, make_app
from torchrec_mm.serving.batcher import MicroBatcher, Refused
from torchrec_mm.serving.current import Current, Following
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.scorer import Scorer

SETTINGS = ServingSettings(
    limits=MOST, timeout_s=60.0, batch_candidates=100, queue_candidates=1000, reload_s=0.0
)

KEPT = ("--checkpoint_steps", "1", "--keep_checkpoints", "3")


@pytest.fixture(scope="module")
def run_dir(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "run"
    return train_ranker(market, folder, "simtier", *KEPT)


@pytest.fixture
def current(run_dir, tmp_path) -> Current:
    """Of a copy of the run that has its first checkpoint alone; the others lie in ``later``."""
    copied = tmp_path / "run"
    shutil.copytree(run_dir, copied)
    first, *others = sorted((copied / "checkpoints").iterdir())
    (tmp_path / "later").mkdir()
    for other in others:
        other.rename(tmp_path / "later" / other.name)
    trained = TrainedRun.open(copied, "latest")
    vectors = open_vectors(trained, None, "mapped")
    return Current(trained, lambda run: Scorer.open(run, run.items, lambda: vectors), Measures())


@pytest.fixture
def client(current):
    none = Histories.none(current.scorer.encoder.columns)
    with TestClient(make_app(current, SETTINGS, current._measures, none)) as client:
        yield client


def rows_of(current: Current, market, count: int) -> list[dict]:
    table = table_of(current.scorer, market.data / "requests" / "test").slice(0, count)
    return table.to_pylist()


def scored(current: Current, market, count: int) -> list[float]:
    table = table_of(current.scorer, market.data / "requests" / "test").slice(0, count)
    return current.scorer.probabilities(parsed(current.scorer, table)).tolist()


def test_one_request_and_several_are_scored_as_the_scorer_does(client, current, market):
    rows = rows_of(current, market, 3)
    said = client.post("/score", json={"requests": rows})
    assert said.status_code == 200
    found = said.json()
    assert found["checkpoint"] == current.checkpoint
    lengths = [len(row["candidate_item_ids"]) for row in rows]
    assert [len(each) for each in found["click_probabilities"]] == lengths
    assert sum(found["click_probabilities"], []) == pytest.approx(scored(current, market, 3))
    (alone,) = client.post("/score", json=rows[1]).json()["click_probabilities"]
    assert alone == pytest.approx(found["click_probabilities"][1], abs=1e-6)


def test_arrow_is_answered_in_arrow(client, current, market):
    table = table_of(current.scorer, market.data / "requests" / "test").slice(0, 3)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    said = client.post(
        "/score", content=sink.getvalue(), headers={"content-type": f"{wire.ARROW}; x=y"}
    )
    found = pa.ipc.open_stream(said.content).read_all()["click_probabilities"].to_pylist()
    assert sum(found, []) == pytest.approx(scored(current, market, 3))


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        (b"{", "application/json", 422, "body must be JSON"),
        (b'{"user_id": 1, "candidate_item_ids": [1], "x": 2}', "", 422, "got x"),
        (b"1234", wire.ARROW, 422, "body must be an Arrow IPC stream"),
        (b"{}", "image/png", 415, "content-type must be"),
        (b"x" * (MOST.bytes + 1), "application/json", 413, "body must be at most 1048576 bytes"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(client, body, kind, status, said):
    answer = client.post("/score", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert said in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_health_readiness_and_metrics(client, current, market):
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json() == {"status": "ready", "checkpoint": current.checkpoint}
    client.post("/score", json=rows_of(current, market, 1)[0])
    client.post("/score", content=b"{")
    page = client.get("/metrics").text
    assert 'torchrec_mm_answers_total{status="200"} 1.0' in page
    assert 'torchrec_mm_answers_total{status="422"} 1.0' in page
    assert f"torchrec_mm_checkpoint_step {float(current.step)}" in page


def test_a_busy_server_does_not_read_what_it_refuses(client, current, market, monkeypatch):
    def full(batcher: MicroBatcher) -> None:
        raise Refused("7 candidates are waiting, more than can be scored in time")

    (row,) = rows_of(current, market, 1)
    with monkeypatch.context() as patch:
        patch.setattr(MicroBatcher, "check_room", full)
        patch.setattr(app, "received", None)  # to call it would be an error
        for body in (b"{", b"x" * (MOST.bytes + 1)):
            said = client.post("/score", content=body)
            assert said.status_code == 503 and said.headers["retry-after"] == "1"
            assert said.json()["error"].startswith("7 candidates are waiting")
    assert client.post("/score", json=row).status_code == 200


def test_openapi_says_what_a_request_may_hold(client):
    page = client.get("/openapi.json").json()
    (one, _) = page["paths"]["/score"]["post"]["requestBody"]["content"][wire.JSON]["schema"][
        "oneOf"
    ]
    assert {"user_id", "candidate_item_ids", "city"} <= one["properties"].keys()
    assert one["additionalProperties"] is False


def test_a_request_whose_scores_are_not_finite_is_not_answered_with_them(client, current, market):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Scorer, "probabilities", lambda self, r: np.full(r.num_impressions, np.nan))
        answer = client.post("/score", json=rows_of(current, market, 1)[0])
    assert answer.status_code == 500 and "NaN" in answer.json()["error"]
    assert client.post("/score", json=rows_of(current, market, 1)[0]).status_code == 200


def later(current: Current, tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "later").iterdir())


def put(current: Current, checkpoint: Path) -> Path:
    """Into the run, whole or not at all, as training does."""
    folder = current.scorer.checkpoint.parent
    aside = Path(shutil.copytree(checkpoint, folder / f".{checkpoint.name}"))
    return aside.rename(folder / checkpoint.name)


def test_a_newer_checkpoint_takes_its_place_and_is_told(client, current, market, tmp_path, caplog):
    row = rows_of(current, market, 1)[0]
    before = client.post("/score", json=row).json()
    put(current, later(current, tmp_path)[-1])
    with caplog.at_level("INFO"):
        assert current.take_newest() and not current.take_newest()
    after = client.post("/score", json=row).json()
    assert after["checkpoint"] == later(current, tmp_path)[-1].name != before["checkpoint"]
    assert after["click_probabilities"] != before["click_probabilities"]
    assert "scores in the place of" in caplog.text
    trained = TrainedRun.open(current.scorer.checkpoint.parents[1], "latest")
    wanted = scorer_of(trained.path)
    table = table_of(wanted, market.data / "requests" / "test").slice(0, 1)
    (found,) = after["click_probabilities"]
    assert found == pytest.approx(wanted.probabilities(parsed(wanted, table)), abs=1e-6)


def test_a_checkpoint_that_cannot_be_loaded_leaves_the_old_one(
    client, current, market, tmp_path, caplog
):
    before = current.checkpoint
    broken = put(current, later(current, tmp_path)[-1])
    for file in broken.glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:100])
    assert not current.take_newest()
    assert current.checkpoint == before and f"{before} goes on scoring" in caplog.text
    assert client.post("/score", json=rows_of(current, market, 1)[0]).status_code == 200
    assert 'torchrec_mm_loads_total{outcome="failed"} 1.0' in client.get("/metrics").text


def test_a_checkpoint_that_scores_nan_is_not_taken(client, current, market, tmp_path, monkeypatch):
    client.post("/score", json=rows_of(current, market, 1)[0])  # what it is tried on
    put(current, later(current, tmp_path)[-1])
    whole = Scorer.probabilities

    def broken(self, requests):
        found = whole(self, requests)
        return found if self is current.scorer else found * np.nan

    monkeypatch.setattr(Scorer, "probabilities", broken)
    before = current.checkpoint
    assert not current.take_newest() and current.checkpoint == before


def test_no_request_fails_while_checkpoints_change(client, current, market, tmp_path):
    row, statuses = rows_of(current, market, 1)[0], []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            statuses.append(client.post("/score", json=row).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    with Following(current, 0.01):
        for checkpoint in later(current, tmp_path):
            put(current, checkpoint)
            for _ in range(100_000):
                if current.checkpoint == checkpoint.name:
                    break
                client.get("/health")
            assert current.checkpoint == checkpoint.name
    done.set()
    asking.join()
    assert statuses and {*statuses} == {200}
    assert json.loads(client.post("/score", json=row).content)["checkpoint"] == current.checkpoint
