"""What tests of the benchmarks share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.forks import pools_of_forks
from torchrec_mm.benchmarks.ranking.data import DataConfig, ranker_data

SMALL = {"users": 24, "items": 300, "behaviours": 40}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Little data of the ranker's benchmarks."""
    folder = tmp_path_factory.mktemp("little") / "data"
    with ranker_data(DataConfig(work_dir=folder, **SMALL)) as made:
        return made


@pytest.fixture
def forked() -> Iterator[None]:
    """Processes that a benchmark starts have imported what they need."""
    with pools_of_forks():
        yield
