"""What was answered is scored again by apps.predict itself, and what differs is told."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.helpers import forks
from tests.helpers.forks import wait_until
from tests.helpers.runs import train_make, train_ranker
from tests.helpers.small_market import ITEM_IDS, VECTOR_WIDTH, write_vectors
from tests.serving.served import table_of
from tests.serving.test_app import SETTINGS
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving import parity
from torchrec_mm.serving.app import make_app
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.parity import Parity, ParitySettings
from torchrec_mm.serving.request_log.rows import LogRows
from torchrec_mm.serving.scorer import Scorer

OUTCOMES = ("compared", "skipped", "failed")


class Served:
    """A server that compares as often as it can, and its client."""

    def __init__(self, run_dir: Path, share: float = 1.0) -> None:
        trained = TrainedRun.open(run_dir, "latest")
        self.vectors = open_vectors(trained, None, "mapped")
        latest = lambda: self.vectors  # noqa: E731
        measures = Measures()
        self.current = Current(trained, lambda run: Scorer.open(run, run.items, latest), measures)
        columns = self.current.scorer.encoder.columns
        compared = Parity(
            ParitySettings(share=share, seconds=0.01),
            self.current,
            trained.items,
            latest,
            LogRows(columns, trained.behaviours_read),
            measures,
        )
        none = Histories.none(columns)
        self.app = make_app(self.current, SETTINGS, measures, none, parity=compared)

    def measured(self, client: TestClient, name: str) -> float:
        found = re.search(rf"^torchrec_mm_parity_{name} (\S+)$", client.get("/metrics").text, re.M)
        return float(found[1]) if found else 0.0

    def wait_for(self, client: TestClient, **wanted: int) -> None:
        """Until as many requests have some outcome."""

        def counted() -> dict[str, int]:
            names = {each: f'requests_total{{outcome="{each}"}}' for each in OUTCOMES}
            found = {each: int(self.measured(client, name)) for each, name in names.items()}
            return {each: count for each, count in found.items() if count}

        wait_until(lambda: sum(counted().values()) >= sum(wanted.values()))
        assert counted() == wanted


@pytest.fixture(autouse=True)
def usual_priority(monkeypatch):
    """Tests beside this one would let it wait."""
    monkeypatch.setattr(parity, "PRIORITY", 0)


@pytest.fixture
def forked(monkeypatch):
    """apps.predict comes out of the server of forks, which has loaded most of it."""

    def predict(self, flags: list[str]) -> None:
        done = forks.run([sys.executable, "-m", "apps.predict", *flags])
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(Parity, "_predict", predict)


@pytest.fixture(scope="module")
def run_dir(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    make = train_make(market, folder / "make_itself")
    return train_ranker(market, folder / "run", "simtier+make", make=make)


def test_what_apps_predict_says_of_the_answers_is_told(run_dir, market, monkeypatch, forked):
    served = Served(run_dir)
    rows = table_of(served.current.scorer, market.data / "requests" / "test").to_pylist()
    unknown = rows[0] | {"candidate_item_ids": [777]}
    with TestClient(served.app) as client:
        assert client.post("/score", json={"requests": [*rows, unknown]}).status_code == 200
        served.wait_for(client, compared=len(rows), skipped=1)
        assert 0 <= served.measured(client, "difference") < 1e-6
        whole = Scorer.probabilities
        monkeypatch.setattr(
            Scorer, "probabilities", lambda self, r: whole(self, r) + np.float32(0.01)
        )
        assert client.post("/score", json=rows[0]).status_code == 200
        served.wait_for(client, compared=len(rows) + 1, skipped=1)
        assert served.measured(client, "difference") == pytest.approx(0.01, abs=1e-5)


def test_answers_are_compared_by_the_vectors_that_they_were_scored_by(
    run_dir, market, tmp_path, forked
):
    served = Served(run_dir)
    (row,) = table_of(served.current.scorer, market.data / "requests" / "test").to_pylist()[:1]
    before = served.vectors
    values = np.random.default_rng(5).normal(size=(len(ITEM_IDS), VECTOR_WIDTH))
    other = write_vectors(tmp_path / "other", values, origin=before.meta.origin)
    assert isinstance(other, ItemVectors)
    with TestClient(served.app) as client:
        served.vectors = other
        assert client.post("/score", json=row).status_code == 200
        served.vectors = before
        served.wait_for(client, compared=1)
        assert served.measured(client, "difference") < 1e-6


def test_nothing_is_compared_without_a_share(run_dir, market):
    served = Served(run_dir, share=0.0)
    (row,) = table_of(served.current.scorer, market.data / "requests" / "test").to_pylist()[:1]
    with TestClient(served.app) as client:
        assert client.post("/score", json=row).status_code == 200
        assert not served.measured(client, 'requests_total{outcome="compared"}')
        assert "parity_requests_total{" not in client.get("/metrics").text


@pytest.mark.slow
def test_a_checkpoint_that_is_gone_is_no_difference_but_told(run_dir, market, monkeypatch, caplog):
    served = Served(run_dir)
    (row,) = table_of(served.current.scorer, market.data / "requests" / "test").to_pylist()[:1]
    whole = Current.score

    def renamed(self, parts):
        found = whole(self, parts)
        return type(found)(found.probabilities, "step-00099999")

    monkeypatch.setattr(Current, "score", renamed)
    with TestClient(served.app) as client, caplog.at_level("WARNING"):
        assert client.post("/score", json=row).status_code == 200
        served.wait_for(client, failed=1)
    assert "could not be compared: apps.predict: error: checkpoint must be" in caplog.text
