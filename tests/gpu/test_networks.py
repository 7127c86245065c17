"""Each method's network on a GPU: the loss, logits and gradients of the CPU's."""

import copy

import pytest
import torch

from tests.ranking.conftest import encoded  # noqa: F401, a fixture
from tests.ranking.small_ranker import ranker_of, spec_of
from tests.train.test_host_waits import ROWS, looked_up, moved
from torchrec_mm.ranking.spec import METHODS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("method", METHODS)
def test_loss_logits_and_gradients_are_those_of_the_cpu(method, encoded):  # noqa: F811
    model, batch = ranker_of(spec_of(method, encoded)), encoded.batch(ROWS, method)
    found, results = looked_up(model, batch), []
    for device in (torch.device("cpu"), torch.device("cuda")):
        network = copy.deepcopy(model.network).to(device)
        embeddings = [moved(each, device) for each in found]
        loss, outputs = network(batch.to(device), *embeddings)
        loss.backward()
        learned = [each.values() for each in embeddings]
        learned += [weight for weight in network.parameters() if weight.requires_grad]
        values = [loss.detach(), outputs.logits, *(each.grad for each in learned)]
        results.append([value.cpu() for value in values])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
