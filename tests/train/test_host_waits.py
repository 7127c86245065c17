"""A training step on a GPU does not wait for it: every method's network, loss, sums and guard."""

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedTensor

from tests.helpers.host_waits import EVERY_DEVICE, META, NoWaits, pretended
from tests.ranking.conftest import encoded  # noqa: F401, a fixture
from tests.ranking.small_ranker import Encoded, ranker_of, spec_of
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import METHODS
from torchrec_mm.runs.position import Position
from torchrec_mm.train.guards import Guard, Step
from torchrec_mm.train.totals import Totals

ROWS = list(range(12))
MOST_KERNELS = 220  # of a step, forward and backward, with look-ups and optimizers left out


def looked_up(model: Ranker, batch: RequestBatch) -> list[KeyedTensor]:
    """What the collections of tables return."""
    asked = (
        (model.item_id_tables, batch.item_ids),
        (model.feature_tables, batch.features),
        (model.bag_tables, batch.bags),
        (model.summed_tables, batch.bags),
    )
    return [tables(ids) for tables, ids in asked if tables is not None]


def moved(found: KeyedTensor, device: torch.device) -> KeyedTensor:
    rows = found.values().detach().to(device).requires_grad_()
    return KeyedTensor(found.keys(), found.length_per_key(), rows)


@pytest.mark.parametrize("method", METHODS)
@EVERY_DEVICE
def test_a_step_waits_for_nothing(method, device, encoded: Encoded, worker):  # noqa: F811
    model, batch = ranker_of(spec_of(method, encoded)), encoded.batch(ROWS, method)
    found = looked_up(model, batch)
    with pretended(device):
        network, batch = model.network.to(device), batch.to(device)
        embeddings = [moved(each, device) for each in found]
        totals, guard = Totals(device), Guard(encoded.data, lambda: None)
        with NoWaits(device) as mode:
            loss, outputs = network(batch, *embeddings)
            if device == META:
                loss.backward()
            totals.add(loss, outputs.logits, outputs.labels)
            guard.add(Step(Position(), loss, outputs.logits, outputs.offsets, outputs.rows))
            totals.count()
    assert 0 < mode.launched.total() <= MOST_KERNELS
    if device == META:
        assert all(each.values().grad is not None for each in embeddings)


@pytest.mark.parametrize("method", METHODS)
def test_how_many_ids_a_feature_has_is_known_when_a_batch_leaves_the_host(method, encoded):  # noqa: F811
    batch = encoded.batch(ROWS, method)
    for ids in (batch.to(META).item_ids, batch.to(META).features):
        assert ids is not None and ids.length_per_key_or_none() is not None
