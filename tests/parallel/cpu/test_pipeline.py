"""A step on CPUs: every batch once, in order; gradients averaged over ranks in one message."""

from dataclasses import dataclass
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tests.helpers import another_rank
from torchrec_mm.data.stream.bags import one_id_bags
from torchrec_mm.parallel.cpu.links import Gloo
from torchrec_mm.parallel.cpu.pipeline import CpuPipeline, average_gradients


@dataclass
class Batch:
    """number: of the batch. absent: as of a model without such tables."""

    number: int
    features: KeyedJaggedTensor
    absent: KeyedJaggedTensor | None = None


class Model(nn.Module):
    """Its outputs say which batch they are of."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: Batch) -> tuple[torch.Tensor, int]:
        return self.weight * batch.number, batch.number


def batches() -> list[Batch]:
    return [Batch(number, one_id_bags({"a": np.arange(number)})) for number in range(4)]


def seen(exchange: object) -> list[int]:
    """What an epoch learns from."""
    model, found = Model(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    learning = list(model.parameters())
    pipeline = CpuPipeline(model, optimizer, optimizer, learning, exchange, None)
    coming = iter(batches())
    for _ in batches():
        found.append(pipeline.progress(coming))
    with pytest.raises(StopIteration):
        pipeline.progress(coming)
    assert model.weight.item() == pytest.approx(1 - 0.1 * sum(found))
    return found


def test_every_batch_is_learned_from_once_then_iteration_stops():
    assert seen(None) == [0, 1, 2, 3]


def test_the_next_batchs_features_are_announced_then_sent_in_every_step():
    exchange = mock.Mock()
    assert seen(exchange) == [0, 1, 2, 3]
    calls = [name for name, *_ in exchange.method_calls]
    assert calls == ["announce", "send"] * 4
    announced = [call.args[0] for call in exchange.announce.call_args_list]
    assert [[bags.stride() for bags in each] for each in announced] == [[1], [2], [3], []]


def test_gradients_are_averaged_over_ranks_in_one_message_absent_ones_as_zeros(monkeypatch):
    another_rank.join(monkeypatch, lambda ours: torch.full_like(ours, 3.0))
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (), (4,))]
    for parameter in parameters[:2]:
        parameter.grad = torch.full_like(parameter, 8.0)
    with mock.patch.object(dist, "all_reduce", side_effect=dist.all_reduce) as messages:
        average_gradients(parameters, Gloo())
    assert messages.call_count == 1
    for parameter, expected in zip(parameters, (7.0, 7.0, 3.0), strict=True):
        assert torch.equal(parameter.grad, torch.full_like(parameter, expected))


def test_a_learning_rate_that_changes_is_handed_on_to_the_tables_in_that_step():
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pipeline = CpuPipeline(model, optimizer, optimizer, list(model.parameters()), None, None)
    coming = iter(batches())
    with mock.patch.object(optimizer, "zero_grad", side_effect=optimizer.zero_grad) as handed_on:
        counts = []
        for rate in (0.1, 0.1, 0.2, 0.2):
            optimizer.param_groups[0]["lr"] = rate
            pipeline.progress(coming)
            counts.append(handed_on.call_count)
    assert counts == [1, 1, 2, 2]
    # The gradient of a step alone is learned from: 0, 1, 2, 3.
    assert model.weight.item() == pytest.approx(1 - 0.1 * 1 - 0.2 * (2 + 3))
