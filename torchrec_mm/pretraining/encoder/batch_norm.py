"""Batch normalisation of trained encoders over the pictures of all ranks.

Off the shelf, BatchNorm layers are frozen: eval mode, stored statistics. Synchronised ones
normalise by the statistics of the global batch while training and by the running ones otherwise.

Shape letters: n rows of this rank, C channels; any further dimensions are positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Which rows of the inputs count, and whether running statistics are updated.
_batch: ContextVar[tuple[Tensor | None, bool]] = ContextVar("batch", default=(None, True))


@contextmanager
def counted_rows(real: Tensor | None, update: bool = True) -> Iterator[None]:
    """For the block: what synchronised norms take their statistics from.

    Args:
        real: (n,) bool, False for fillers: they are normalised like the others and leave the
            statistics alone. None counts all rows.
        update: False where a forward pass is run again and has updated running statistics before.
    """
    token = _batch.set((real, update))
    try:
        yield
    finally:
        _batch.reset(token)


def counted_rows_now() -> Tensor | None:
    """``real`` of the surrounding ``counted_rows``."""
    return _batch.get()[0]


class SynchronisedBatchNorm(nn.Module):
    """BatchNorm by the mean and variance of the rows of all ranks, on any device.

    Every row weighs the same, however many a rank has. Gradients flow through the statistics of
    all ranks. Running statistics move as torch's do; a global batch of fillers leaves them alone.
    Takes the place of nn.BatchNorm1d, nn.BatchNorm2d or timm's BatchNormAct2d under the same names.

    Source: Ioffe and Szegedy, ICML 2015, arXiv:1502.03167. Ours: fillers, and sums relative to
    the running mean, so that float32 does not cancel.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        """``norm``: with weights and running statistics; they are shared, not copied."""
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name))
        self.eps, self.momentum = norm.eps, norm.momentum
        self.drop = getattr(norm, "drop", nn.Identity())
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, C, ...) float -> the same shape and dtype."""
        if self.training:
            outputs = self._by_batch(inputs)
        else:
            outputs = F.batch_norm(
                inputs, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return self.act(self.drop(outputs))

    @torch.compiler.disable  # a collective inside a compiled graph buys nothing
    def _by_batch(self, inputs: Tensor) -> Tensor:
        real, update = _batch.get()
        if real is None:
            real = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        real = real.repeat_interleave(len(inputs) // len(real), output_size=len(inputs))
        outputs, mean, variance, count = _Normalise.apply(
            inputs, self.weight, self.bias, self.running_mean, real, self.eps
        )
        if update:
            self._update(mean, variance, count)
        return outputs

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        seen = (count > 0).float()
        self.num_batches_tracked += seen.long()
        cumulative = 1 / self.num_batches_tracked.clamp(min=1)
        share = cumulative if self.momentum is None else self.momentum
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean), share * seen)
        self.running_var.lerp_(unbiased.to(self.running_var), share * seen)


def synchronise_batch_norms(module: nn.Module) -> None:
    """Replace the BatchNorm layers inside ``module`` whose weights are trained, in place."""
    for name, child in module.named_children():
        if (
            isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d)
            and child.running_mean is not None
            and any(weight.requires_grad for weight in child.parameters(recurse=False))
        ):
            setattr(module, name, SynchronisedBatchNorm(child))
        else:
            synchronise_batch_norms(child)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias; one sum over ranks each way."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        shift: Tensor,
        real: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _moments(inputs, shift, real)
        inverse = (variance + eps).rsqrt()
        scale = inverse * weight
        outputs = inputs.float() * _wide(scale, inputs) + _wide(bias - mean * scale, inputs)
        ctx.save_for_backward(inputs, weight, mean, inverse, real, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return outputs.to(inputs.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, inverse, real, count = ctx.saved_tensors
        gradient = gradient.float()
        unit = (inputs.float() - _wide(mean, inputs)) * _wide(inverse, inputs)
        others = [i for i in range(inputs.ndim) if i != 1]
        of_bias, of_weight = gradient.sum(others), (gradient * unit).sum(others)
        sums = _sum_over_ranks(torch.stack([of_bias, of_weight])) / count.clamp(min=1)
        through = _wide(sums[0], inputs) + unit * _wide(sums[1], inputs)
        gradient = gradient - torch.where(_rows(real, inputs), through, 0)
        of_inputs = gradient * _wide(inverse * weight, inputs)
        return of_inputs.to(inputs.dtype), of_weight, of_bias, None, None, None


def _moments(inputs: Tensor, shift: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), variance (C,) and number of values, scalar, of the real rows of all ranks."""
    others = [i for i in range(inputs.ndim) if i != 1]
    shifted = torch.where(_rows(real, inputs), inputs.float() - _wide(shift, inputs), 0)
    count = real.sum().float() * inputs[0, 0].numel()
    sums = torch.cat([shifted.sum(others), shifted.square().sum(others), count[None]])
    sums = _sum_over_ranks(sums)
    first, second = (sums[:-1] / sums[-1].clamp(min=1)).chunk(2)
    return shift.float() + first, (second - first.square()).clamp(min=0), sums[-1]


def _sum_over_ranks(values: Tensor) -> Tensor:
    if dist.is_initialized() and dist.get_world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def _wide(per_channel: Tensor, like: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...)."""
    return per_channel.float().view(1, -1, *[1] * (like.ndim - 2))


def _rows(real: Tensor, like: Tensor) -> Tensor:
    """(n,) -> (n, 1, 1, ...)."""
    return real.view(-1, *[1] * (like.ndim - 1))
