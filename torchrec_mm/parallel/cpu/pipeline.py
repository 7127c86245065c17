"""One step after the other: on a CPU there is nothing to hide behind the work but messages."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.optim.keyed import KeyedOptimizer
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.parallel.cpu.exchange import Exchange
from torchrec_mm.parallel.cpu.links import Links


class CpuPipeline:
    """Does what TorchRec's pipelines do: ``progress`` is a step of training."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: KeyedOptimizer,
        dense: KeyedOptimizer,
        learning: Sequence[nn.Parameter],
        exchange: Exchange | None,
        links: Links | None,
    ) -> None:
        """Begin an epoch.

        Args:
            model: returns (loss, outputs). optimizer: of all of it.
            dense: of what does not learn in the backward pass.
            learning: the parameters of ``dense``.
            exchange: that look-ups go through, if any do.
            links: to the other ranks; None on a lone one.
        """
        self.model, self.optimizer, self.dense = model, optimizer, dense
        self.learning, self.exchange, self.links = learning, exchange, links
        self.rates: list[float] = []
        self.coming: list[Any] = []

    def progress(self, batches: Iterator[Any]) -> Any:
        """Learn from a batch; the model's outputs. StopIteration at the end. Collective."""
        batch = self.coming.pop() if self.coming else next(batches)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if rates != self.rates:  # hands them on to the tables, too
            self.optimizer.zero_grad(set_to_none=True)
            self.rates = rates
        else:
            for parameter in self.learning:
                parameter.grad = None
        loss, outputs = self.model(batch)
        if self.exchange is not None:
            self.coming = list(islice(batches, 1))
            self.exchange.announce([bags for batch in self.coming for bags in bags_of(batch)])
        loss.backward()
        if self.exchange is not None:
            self.exchange.send()
        if self.links is not None:
            average_gradients(self.learning, self.links)
        self.dense.step()
        return outputs

    def detach(self) -> None:
        """Nothing was rewritten, so there is nothing to undo."""


def bags_of(batch: Any) -> list[KeyedJaggedTensor]:
    """The features of a dataclass, in its order."""
    return [part for part in vars(batch).values() if isinstance(part, KeyedJaggedTensor)]


def average_gradients(parameters: Sequence[nn.Parameter], links: Links) -> None:
    """The mean over all ranks, all at once; zeros where there is no gradient. Collective."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    together = torch.cat([gradient.flatten() for gradient in gradients]).div_(dist.get_world_size())
    links.sum(together)
    parts: tuple[Tensor, ...] = together.split([gradient.numel() for gradient in gradients])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
