"""A scorer without a process group scores as apps.predict does, whatever it is asked at once."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch.distributed as dist

from tests.helpers.kinds_market import write_kinds_market
from tests.helpers.runs import train_make, train_ranker
from tests.helpers.small_market import ITEM_IDS, SmallMarket
from tests.serving.served import parsed, predicted, scorer_of, table_of
from torchrec_mm.serving.requests import together

pytestmark = pytest.mark.slow

METHODS = (
    *("bias", "id", "vector", "simscore", "simtier", "make", "simtier+make", "codes", "muse"),
)
ROWS = {name: {"rows": 16, "partitions": 1} for name in ("user_id", "item_id")}
# In float32 a sum may be rounded another way when there are more rows.
NEAR = 1e-6


@pytest.fixture(scope="module", params=["plain", "kinds"])
def served(request, tmp_path_factory) -> tuple[SmallMarket, dict[str, Path]]:
    """A market and a run of each method on it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "kinds":
        return market_and_runs(write_kinds_market(folder), folder, ("id", "simtier+make", "muse"))
    from tests.helpers.small_market import write_small_market

    return market_and_runs(write_small_market(folder), folder, METHODS)


def market_and_runs(
    market: SmallMarket, folder: Path, methods: tuple[str, ...]
) -> tuple[SmallMarket, dict[str, Path]]:
    make = train_make(market, folder / "make_itself")
    runs = {m: train_ranker(market, folder / m, m, make=make) for m in methods}
    raw = ("--zero_collision", json.dumps(ROWS))
    runs["raw ids"] = train_ranker(market, folder / "raw", "id", *raw)
    return market, runs


def test_every_method_scores_as_predict_does(served, tmp_path):
    market, runs = served
    requests = market.data / "requests" / "test"
    for name, run_dir in runs.items():
        wanted = predicted(run_dir, requests, tmp_path / f"{name}.parquet")
        scorer = scorer_of(run_dir)
        found = scorer.probabilities(parsed(scorer, table_of(scorer, requests)))
        assert found == pytest.approx(wanted, abs=NEAR), name
        assert len({*found.round(5)}) > len(found) / 4 or name == "bias", name
    assert not dist.is_initialized()


def test_a_request_scores_alone_as_it_does_among_others(served):
    market, runs = served
    for name, run_dir in runs.items():
        scorer = scorer_of(run_dir)
        table = table_of(scorer, market.data / "requests" / "test")
        whole = scorer.probabilities(parsed(scorer, table))
        each = [parsed(scorer, table.slice(row, 1)) for row in range(len(table))]
        alone = np.concatenate([scorer.probabilities(request) for request in each])
        assert alone == pytest.approx(whole, abs=NEAR), name
        assert scorer.probabilities(together(each)) == pytest.approx(whole, abs=NEAR), name


def test_an_item_that_is_in_no_catalogue_is_scored_as_one_of_which_nothing_is_known(served):
    market, runs = served
    new, other = 12345, 54321
    for run_dir in runs.values():
        scorer = scorer_of(run_dir)
        table = table_of(scorer, market.data / "requests" / "test").slice(0, 1)
        scores = []
        for item in (new, other):
            place = table.column_names.index("candidate_item_ids")
            count = len(table["candidate_item_ids"][0])
            items = pa.array([[item] * count], pa.list_(pa.int64()))
            asked = table.set_column(place, "candidate_item_ids", items)
            scores.append(scorer.probabilities(parsed(scorer, asked)))
        assert np.isfinite(scores[0]).all()
        assert scores[0] == pytest.approx(scores[1], abs=NEAR)


def test_what_is_known_of_an_item_is_what_an_encoded_data_set_says(served):
    market, runs = served
    catalogue = scorer_of(runs["id"]).encoder.catalogue
    known = catalogue.of(np.sort(ITEM_IDS))
    one = catalogue.of(np.sort(ITEM_IDS)[3:4])
    assert (known.rows[:, 3] == one.rows[:, 0]).all()
    unknown = catalogue.of(np.array([777]))
    assert (unknown.rows == 0).all()
    for bag in unknown.bags.values():
        assert len(bag.values) == 0
    if unknown.numbers is not None:
        assert np.isnan(unknown.numbers).all()
