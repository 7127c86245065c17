"""What tests of the benchmarks share."""

from collections.abc import Iterator

import pytest

from tests.helpers.forks import pools_of_forks


@pytest.fixture
def forked() -> Iterator[None]:
    """Processes that a benchmark starts have imported what they need."""
    with pools_of_forks():
        yield
