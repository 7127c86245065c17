"""CUDA's own word that a step waits for nothing; elsewhere it is pretended devices that say so."""

from collections.abc import Iterator

import pytest
import torch

from tests.pretraining.scl.made_pairs import Pairs
from tests.pretraining.scl.test_host_waits import scl_on, with_relevant
from tests.ranking.conftest import encoded  # noqa: F401, a fixture
from tests.ranking.small_ranker import ranker_of, spec_of
from tests.train.test_host_waits import ROWS, looked_up, moved
from torchrec_mm.ranking.spec import METHODS

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda")


@pytest.fixture
def no_waits() -> Iterator[None]:
    """When the test is over waits are allowed again."""
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_the_ranker_waits_for_nothing(method, encoded, no_waits):  # noqa: F811
    model, batch = ranker_of(spec_of(method, encoded)), encoded.batch(ROWS, method)
    found = looked_up(model, batch)
    network, batch = model.network.to(GPU), batch.to(GPU)
    embeddings = [moved(each, GPU) for each in found]
    for allowed in ("default", "error"):  # what is compiled and loaded at first may take its time
        torch.cuda.set_sync_debug_mode(allowed)
        loss, _ = network(batch, *embeddings)
        loss.backward()


def test_a_step_of_scl_waits_for_nothing(no_waits):
    scl, batch = scl_on(GPU), with_relevant(Pairs.draw(20, seed=3).batch()).to(GPU)
    for allowed in ("default", "error"):
        torch.cuda.set_sync_debug_mode(allowed)
        loss, _ = scl(batch)
        loss.backward()
        scl.after_step()
