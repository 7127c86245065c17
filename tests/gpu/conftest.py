"""What tests on a GPU share: the same work on its host's CPU, to compare with."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from torchrec_mm.parallel import process_group


@pytest.fixture
def ranks_on() -> Callable[[str], AbstractContextManager[None]]:
    """A context for each device, "cpu" or "gpu": what the ranks of its block compute on."""

    @contextmanager
    def block(device: str) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            if device == "cpu":
                patch.setattr(process_group, "usable_gpus", lambda: 0)
            yield

    return block
