"""Logs of every kind, for facts that hold of all of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from tests.helpers.live import SPACE
from tests.helpers.servers import SERVERS, running
from torchrec_mm.item_vectors.live.lmdb_log import LmdbLog
from torchrec_mm.item_vectors.live.log import Log, Space
from torchrec_mm.item_vectors.live.redis_log import RedisLog


@pytest.fixture(scope="module", params=["lmdb", *SERVERS])
def open_log(request, tmp_path_factory) -> Iterator[Callable[[str, Space], Log]]:
    """Opens a log by name, of a space; with nothing in it if the name is new."""
    folder = tmp_path_factory.mktemp("log")
    with ExitStack() as stack:
        if request.param == "lmdb":
            yield lambda name, space: LmdbLog(folder / name, space)
        else:
            server = stack.enter_context(running(request.param, folder))
            yield lambda name, space: RedisLog(server.url, name, space)


@pytest.fixture(scope="module")
def new_log(open_log) -> Callable[[], Log]:
    numbers = count()
    return lambda: open_log(str(next(numbers)), SPACE)


@pytest.fixture
def log(new_log) -> Iterator[Log]:
    made = new_log()
    yield made
    made.close()
