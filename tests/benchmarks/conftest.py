"""What tests of the benchmarks share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.forks import pools_of_forks
from torchrec_mm.benchmarks.ranking.data import DataConfig, ranker_data
from torchrec_mm.benchmarks.ranking.short_data import ShortDataConfig, short_data

SMALL = {"users": 24, "items": 300, "behaviours": 40}
SHORT = {"users": 20, "items": 150, "requests": 150, "behaviours": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Little data of the ranker's benchmarks."""
    folder = tmp_path_factory.mktemp("little") / "data"
    with ranker_data(DataConfig(work_dir=folder, **SMALL)) as made:
        return made


@pytest.fixture(scope="session")
def short_folder(tmp_path_factory) -> Path:
    """Little data of the short benchmark."""
    folder = tmp_path_factory.mktemp("short") / "data"
    with pools_of_forks(), short_data(ShortDataConfig(work_dir=folder, **SHORT)) as made:
        return made


@pytest.fixture
def forked() -> Iterator[None]:
    """Processes that a benchmark starts have imported what they need."""
    with pools_of_forks():
        yield
