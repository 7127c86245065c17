"""One small market for all tests of this room."""

import pytest

from tests.helpers.small_market import write_small_market
from tests.ranking.small_ranker import Encoded, encode


@pytest.fixture(scope="package")
def encoded(tmp_path_factory) -> Encoded:
    return encode(write_small_market(tmp_path_factory.mktemp("market")))
