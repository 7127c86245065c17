"""A linear layer of rows that share a part of their columns, and sums of some columns beside it.

Shape letters: R owners, I rows, G groups of owners' columns, w and v columns of an owner and of a
row alone, H units.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LARGE = 1 << 15  # owners' columns of a batch


class Shared(NamedTuple):
    """What is multiplied once an owner.

    groups: (R, ...) each, G columns side by side. owner: (I,) int32 in [0, R), ascending.
    each_its_own: whether row i's owner is i.
    """

    groups: Sequence[Tensor]
    owner: Tensor
    each_its_own: bool


class Summed(NamedTuple):
    """Columns whose sum is wanted: (1, w) and (1, v) float, 1 where one is summed, else 0."""

    shared: Tensor
    own: Tensor


def shared_linear(
    shared: Shared,
    own: Tensor,
    weights: tuple[Tensor, Tensor],
    bias: Tensor,
    summed: Summed,
) -> tuple[Tensor, Tensor]:
    """Units and sums of each row's columns: its owner's and, after them, its own.

    Where a CPU learns from a large batch, its columns are read where they lie and gradients worked
    out here, without a copy; of a small batch, copies cost less than the operations of that.

    Args:
        shared: owners' columns. own: (I, v). weights: (H, w) and (H, v). bias: (H,).
        summed: which columns go into the sum.

    Returns:
        (I, H) and (I,).
    """
    learns = torch.is_grad_enabled() and own.device.type == "cpu"
    is_large = shared.groups[0].shape[0] * weights[0].shape[1] >= LARGE
    if learns and is_large and not torch.compiler.is_compiling():
        return _ByHand.apply(shared, summed, own, *weights, bias, *shared.groups)
    return shared_linear_reference(shared, own, weights, bias, summed)


def shared_linear_reference(
    shared: Shared,
    own: Tensor,
    weights: tuple[Tensor, Tensor],
    bias: Tensor,
    summed: Summed,
) -> tuple[Tensor, Tensor]:
    """:func:`shared_linear` as it is defined; the sum is computed as one more unit."""
    of_owners = F.linear(torch.cat(list(shared.groups), 1), torch.cat([weights[0], summed.shared]))
    of_rows = F.linear(own, torch.cat([weights[1], summed.own]), F.pad(bias, (0, 1)))
    units = of_rows + F.embedding(shared.owner, of_owners)
    hidden, sums = units.split([units.shape[1] - 1, 1], dim=1)
    return hidden, sums[:, 0]


class _ByHand(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        shared: Shared,
        summed: Summed,
        own: Tensor,
        of_shared: Tensor,
        of_own: Tensor,
        bias: Tensor,
        *groups: Tensor,
    ) -> tuple[Tensor, Tensor]:
        hidden = torch.addmm(bias, own, of_own.t())
        sums = own @ summed.own[0]
        widths = [group.shape[1] for group in groups]
        parts = of_shared.split(widths, dim=1), summed.shared[0].split(widths)
        units = of_shared.new_zeros(groups[0].shape[0], of_shared.shape[0])
        total = units.new_zeros(units.shape[0])
        for group, weight, chosen in zip(groups, *parts, strict=True):
            units.addmm_(group, weight.t())
            total.addmv_(group, chosen)
        if not shared.each_its_own:
            units, total = units.index_select(0, shared.owner), total.index_select(0, shared.owner)
        ctx.save_for_backward(own, of_shared, of_own, *groups)
        ctx.shared, ctx.summed = shared, summed
        return hidden.add_(units), sums.add_(total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_hidden: Tensor, of_sums: Tensor) -> tuple[Tensor | None, ...]:
        own, of_shared, of_own, *groups = ctx.saved_tensors
        bias = of_hidden.sum(0)
        to_own = of_hidden.t() @ own
        own_gradient = (of_hidden @ of_own).addr_(of_sums, ctx.summed.own[0])
        if not ctx.shared.each_its_own:
            owner, count = ctx.shared.owner, groups[0].shape[0]
            of_hidden = torch.ops.aten.embedding_dense_backward(of_hidden, owner, count, -1, False)
            of_sums = of_sums.new_zeros(count).index_add_(0, owner, of_sums)
        to_shared = torch.empty_like(of_shared)
        of_groups: list[Tensor | None] = []
        widths = [group.shape[1] for group in groups]
        parts = [x.split(widths, dim=1) for x in (of_shared, to_shared, ctx.summed.shared)]
        needed = ctx.needs_input_grad[6:]
        for group, is_needed, weight, to_weight, chosen in zip(groups, needed, *parts, strict=True):
            torch.mm(of_hidden.t(), group, out=to_weight)
            gradient = (of_hidden @ weight).addr_(of_sums, chosen[0]) if is_needed else None
            of_groups.append(gradient)
        return None, None, own_gradient, to_shared, to_own, bias, *of_groups
