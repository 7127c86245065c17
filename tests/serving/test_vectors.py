"""A scorer follows a live index: a new item is scored by its vector as soon as that is there."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.helpers.runs import train_make, train_ranker
from tests.serving.served import parsed, scorer_of, table_of
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.index import adopt, create_index, open_log, space_of
from torchrec_mm.item_vectors.live.log import Changes
from torchrec_mm.item_vectors.live.publish import publish
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.scorer import Scorer
from torchrec_mm.serving.vectors import FollowedVectors

NEW = 4711
METHODS = ("simtier", "simtier+make", "codes", "muse")


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    make = train_make(market, folder / "make_itself")
    return {method: train_ranker(market, folder / method, method, make=make) for method in METHODS}


@pytest.fixture
def index(market, tmp_path) -> Path:
    """Of the market's vectors, which are its first snapshot."""
    vectors = ItemVectors.open(market.vectors)
    create_index(tmp_path / "index", space_of(vectors))
    adopt(tmp_path / "index", vectors)
    return tmp_path / "index"


def write(index: Path, item: int, vector: np.ndarray | None) -> None:
    """What a near-line encoder writes of one item."""
    origin = next((index / "spaces").iterdir()).name
    log = open_log(index, origin)
    width = ItemVectors.open(index).width
    stored = np.zeros((1, width), np.float32) if vector is None else vector[None]
    ids, versions = np.array([item]), np.array([1 if vector is not None else 2])
    log.write(Changes(ids, versions, np.array([vector is None]), stored), origin)
    log.close()


def scores(scorer: Scorer, market, item: int) -> np.ndarray:
    """Of one item for a user with a history."""
    table = table_of(scorer, market.data / "requests" / "test")
    past = table["behaviour_item_ids"].combine_chunks().value_lengths().to_numpy()
    row = table.slice(int(past.argmax()), 1)
    place = row.column_names.index("candidate_item_ids")
    row = row.set_column(place, "candidate_item_ids", pa.array([[item]]))
    return scorer.probabilities(parsed(scorer, row))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_new_item_is_scored_by_its_vector_once_that_is_written(method, market, runs, index):
    trained = TrainedRun.open(runs[method], "latest")
    vectors = FollowedVectors.open(trained, index, 60.0)
    scorer = Scorer.open(trained, trained.items, vectors.latest)
    known = ItemVectors.open(market.vectors)
    before = scores(scorer, market, NEW)
    twin = np.array(known.values[3], np.float32)
    write(index, NEW, twin)
    assert scores(scorer, market, NEW) == before  # nobody has looked yet
    assert vectors.index.refresh()
    with_vector = scores(scorer, market, NEW)
    assert with_vector != before
    # As of an unknown item with that vector in a folder of vectors.
    write(index, NEW + 1, twin)
    publish(index)
    vectors.index.refresh()
    assert scores(scorer, market, NEW) == pytest.approx(with_vector, abs=1e-6)
    assert scores(scorer, market, NEW + 1) == pytest.approx(with_vector, abs=1e-6)
    write(index, NEW, None)
    vectors.index.refresh()
    assert scores(scorer, market, NEW) == pytest.approx(before, abs=1e-6)


def test_it_scores_as_from_a_folder_where_nothing_came_since(market, runs, index):
    trained = TrainedRun.open(runs["simtier+make"], "latest")
    vectors = FollowedVectors.open(trained, index, 60.0)
    live, still = Scorer.open(trained, trained.items, vectors.latest), scorer_of(trained.path)
    requests = parsed(still, table_of(still, market.data / "requests" / "test"))
    assert live.probabilities(requests).tolist() == still.probabilities(requests).tolist()


def test_in_its_block_it_takes_in_what_comes_and_tells(market, runs, index):
    trained = TrainedRun.open(runs["simtier"], "latest")
    measures = Measures()
    with FollowedVectors.open(trained, index, 0.001) as vectors:
        measures.watch_index(vectors.index)
        write(index, NEW, np.array(ItemVectors.open(market.vectors).values[3], np.float32))
        while vectors.latest().rows(np.array([NEW]))[0] < 0:
            pass
        page = measures.page().decode()
    assert "torchrec_mm_vector_overlay 1.0" in page and "torchrec_mm_vector_snapshot 1.0" in page


def test_an_index_of_another_origin_is_refused(market, runs, tmp_path):
    known = ItemVectors.open(market.vectors)
    write_item_vectors(
        *(tmp_path / "other", known.item_ids, known.values),
        **dict(dtype="float32", encoder="x", modality="y", origin="another"),
    )
    other = ItemVectors.open(tmp_path / "other")
    create_index(tmp_path / "index", space_of(other))
    adopt(tmp_path / "index", other)
    with pytest.raises(InputError, match="another|must"):
        FollowedVectors.open(TrainedRun.open(runs["simtier"], "latest"), tmp_path / "index", 60.0)
