"""What tests of this room share; a group and encoded data for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.ranking.small_ranker import Encoded, encode
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """This process in a group of one."""
    with suppress_library_warnings(), process_group() as alone:
        yield alone


@pytest.fixture(scope="module")
def encoded(market) -> Encoded:
    return encode(market)
