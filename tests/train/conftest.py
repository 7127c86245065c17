"""A process group of one for tests that call collectives directly."""

import pytest

from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.quiet import quiet_libraries


@pytest.fixture
def worker() -> Worker:
    with quiet_libraries(), process_group() as alone:
        yield alone
