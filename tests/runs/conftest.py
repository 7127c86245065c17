"""What a module that kills ranks trains on, and the run that it is compared with."""

from pathlib import Path

import pytest

from tests.helpers.small_market import SmallMarket, write_small_market
from tests.runs.killed import launch_training, train_requests


@pytest.fixture(scope="module")
def long_market(request, tmp_path_factory) -> SmallMarket:
    """Enough for the KILLS of the module."""
    requests = train_requests(request.module.KILLS)
    return write_small_market(tmp_path_factory.mktemp("market"), train=requests)


@pytest.fixture(scope="module")
def whole(long_market, tmp_path_factory) -> Path:
    """A run on two ranks that nobody killed."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    launch_training(long_market, run_dir, 2).finish()
    return run_dir
