"""What tests of this room share; a group and encoded data for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.ranking.small_ranker import Encoded, encode
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.quiet import quiet_libraries


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """This process in a group of one."""
    with quiet_libraries(), process_group() as alone:
        yield alone


@pytest.fixture(scope="module")
def encoded(market) -> Encoded:
    return encode(market)
