"""A market with columns of all kinds, and what scores it."""

from pathlib import Path

import pyarrow as pa
import pytest

from tests.helpers.kinds_market import write_kinds_market
from tests.helpers.runs import train_ranker
from tests.serving.request_log.logging_server import KEPT_BEHAVIOURS
from tests.serving.served import scorer_of, table_of


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return write_kinds_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def run_dir(market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "run"
    return train_ranker(market, folder, "id", "--max_behaviours", str(KEPT_BEHAVIOURS))


@pytest.fixture(scope="module")
def scorer(run_dir):
    return scorer_of(run_dir)


@pytest.fixture(scope="module")
def asked(scorer, market) -> pa.Table:
    return table_of(scorer, market.data / "requests" / "test")
