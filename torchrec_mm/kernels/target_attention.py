"""DIN's target attention over requests of any lengths, without padding.

``nn.TargetAttention`` holds the weights and is the definition, over padded requests.

Shape letters: R requests, I impressions, T behaviours, P pairs of an impression and a behaviour of
its request, S slots, C candidates and L behaviours of the longest lists, E embedding width.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchrec_mm.kernels.build import compiled
from torchrec_mm.nn.target_attention import TargetAttention

_LANES = 16  # columns that the kernel takes at once, and its hidden units


class RequestLists(NamedTuple):
    """Where each request's candidates and behaviours lie: one request after another.

    candidate_offsets, behaviour_offsets: (R + 1,) int64, first 0, last I and T, never falling.
    most_candidates, most_behaviours: lengths of the longest lists, C and L, or more.
    """

    candidate_offsets: Tensor
    behaviour_offsets: Tensor
    most_candidates: int
    most_behaviours: int


def target_attention(
    module: TargetAttention,
    targets: Tensor,
    table: Tensor,
    index: Tensor,
    lists: RequestLists,
    cosine: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Pool the behaviours of each request, once for each of its impressions.

    Float32 on CPU runs compiled where it can; results and gradients are the same from run to run
    and for any number of threads.

    Args:
        module: the activation unit.
        targets: (I, E) float32, one row an impression.
        table: (S, E) float32, rows of behaviours.
        index: (T,) int32 in [0, S), row of each behaviour.
        lists: whose the impressions and behaviours are.
        cosine: (P,) float32, side information of each pair, impression after impression; 0 where
            it is unknown. Takes no gradient. Given exactly when ``module`` was built with it.

    Returns:
        interest: (I, E), weighted means of behaviours; zeros where there is none.
        mean_cosine: (I,), the weighted means of ``cosine``; None without.

    Raises:
        ValueError: a shape or dtype is not as above.
        IndexError: ``index`` is out of its range (compiled; the plain version, where a check
            would wait for the device, promises nothing then).
    """
    _check(module, targets, table, index, cosine)
    kernel = None
    if all(x.device.type == "cpu" and x.dtype == torch.float32 for x in (targets, table)):
        if module.product.shape[0] == _LANES:
            kernel = compiled("target_attention")
    if kernel is None:
        return target_attention_reference(module, targets, table, index, lists, cosine)
    width = targets.shape[1]
    side = module.side
    interest, mean_cosine = _Compiled.apply(
        kernel,
        torch.is_grad_enabled(),
        lists,
        index.contiguous(),
        None if cosine is None else cosine.contiguous(),
        _padded(targets),
        _padded(table),
        _padded(module.behaviour.weight),
        module.behaviour.bias,
        _padded(module.target.weight),
        _padded(module.product),
        side,
        module.score.weight,
    )
    return interest[:, :width], None if cosine is None else mean_cosine


def target_attention_reference(
    module: TargetAttention,
    targets: Tensor,
    table: Tensor,
    index: Tensor,
    lists: RequestLists,
    cosine: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Same as :func:`target_attention`, in plain torch: any device and float dtype."""
    candidate_RC, is_candidate = padded_places(lists.candidate_offsets, lists.most_candidates)
    behaviour_RL, is_behaviour = padded_places(lists.behaviour_offsets, lists.most_behaviours)
    targets_RCE = _rows(targets, candidate_RC)
    behaviours_RLE = _rows(_rows(table, index), behaviour_RL)
    sides: tuple[Tensor, ...] = ()
    if cosine is not None:
        first_pair = _first_pairs(lists)[:-1, None, None]
        lengths = lists.behaviour_offsets.diff()[:, None, None]
        mask = is_candidate[:, :, None] & is_behaviour[:, None]
        _, most_candidates, most_behaviours = mask.shape
        place = torch.arange(most_candidates, device=index.device)[None, :, None]
        pair = first_pair + place * lengths
        pair = pair + torch.arange(most_behaviours, device=index.device)
        pair = pair.masked_fill(~mask, 0)
        sides = (_rows(cosine.detach()[:, None], pair).squeeze(-1), mask)
    pooled_RCE = module(targets_RCE, behaviours_RLE, is_behaviour, *sides)
    # Back to impressions by their places: a mask would wait for the device.
    impression = torch.arange(targets.shape[0], device=index.device)
    request = torch.searchsorted(lists.candidate_offsets, impression, right=True) - 1
    place = impression - lists.candidate_offsets[request]
    pooled = pooled_RCE[request, place]
    return (pooled, None) if cosine is None else (pooled[:, :-1], pooled[:, -1])


def padded_places(offsets: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Lists one after another as a matrix of places.

    Args:
        offsets: (R + 1,) int64, where each list begins. longest: L, of any list, or more.

    Returns:
        (R, max(L, 1)) int64 place of each value, 0 in padding, and bool, True where real.
    """
    place = torch.arange(max(longest, 1), device=offsets.device)
    real = place < offsets.diff()[:, None]
    return (offsets[:-1, None] + place).masked_fill(~real, 0), real


def _rows(values: Tensor, places: Tensor) -> Tensor:
    """Rows of ``values`` (n, E), zeros where there are none at all."""
    return F.embedding(places, values if values.shape[0] else F.pad(values, (0, 0, 0, 1)))


def _first_pairs(lists: RequestLists) -> Tensor:
    """(R + 1,) int64: the first pair of each request."""
    pairs = lists.candidate_offsets.diff() * lists.behaviour_offsets.diff()
    return F.pad(pairs.cumsum(0), (1, 0))


def _padded(rows: Tensor) -> Tensor:
    """Columns of zeros up to a multiple of what the kernel takes at once."""
    missing = -rows.shape[1] % _LANES
    return F.pad(rows, (0, missing)) if missing else rows.contiguous()


_TENSORS = ("targets", "table", "index", "candidate_offsets", "behaviour_offsets", "cosine")
_WEIGHTS = ("behaviour_weight", "behaviour_bias", "target_weight", "product", "side", "score")


class _Inputs(ctypes.Structure):
    """The struct of the same name in target_attention.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (*_TENSORS, *_WEIGHTS)),
        *((name, ctypes.c_int64) for name in ("R", "S", "width", "threads")),
    ]


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernel: ctypes.CDLL,
        learns: bool,
        lists: RequestLists,
        index: Tensor,
        cosine: Tensor | None,
        targets: Tensor,
        table: Tensor,
        *weights: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        described = _described(lists, index, cosine, targets, table, weights)
        count_pairs, run, _ = _functions(kernel)
        pairs = count_pairs(ctypes.byref(described))
        if pairs < 0:
            raise IndexError("index is out of its range")
        interest, mean_cosine = torch.empty_like(targets), targets.new_empty(len(targets))
        weight = targets.new_empty(pairs)
        units = targets.new_empty(pairs, _LANES) if learns else None
        run(ctypes.byref(described), *_addresses(interest, mean_cosine, weight, units))
        ctx.kernel, ctx.lists = kernel, lists
        ctx.save_for_backward(index, cosine, targets, table, weight, units, *weights)
        if cosine is None:
            ctx.mark_non_differentiable(mean_cosine)
        return interest, mean_cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_interest: Tensor, grad_mean: Tensor) -> tuple[Any, ...]:
        index, cosine, targets, table, weight, units, *weights = ctx.saved_tensors
        described = _described(ctx.lists, index, cosine, targets, table, weights)
        grad_targets, grad_table = torch.empty_like(targets), torch.zeros_like(table)
        grad_values = table.new_empty(len(index), table.shape[1])
        of_weights = [x if x is None else torch.zeros_like(x) for x in weights]
        given = (weight, units, grad_interest.contiguous(), grad_mean.contiguous())
        out = (grad_targets, grad_table, grad_values, *of_weights)
        # All have names: the kernel gets nothing but addresses.
        _, _, run = _functions(ctx.kernel)
        run(ctypes.byref(described), *_addresses(*given, *out))
        return *[None] * 5, grad_targets, grad_table, *of_weights


def _described(
    lists: RequestLists,
    index: Tensor,
    cosine: Tensor | None,
    targets: Tensor,
    table: Tensor,
    weights: Sequence[Tensor | None],
) -> _Inputs:
    requests, slots, width = len(lists.candidate_offsets) - 1, *table.shape
    offsets = (lists.candidate_offsets, lists.behaviour_offsets)
    return _Inputs(
        *_addresses(targets, table, index, *offsets, cosine, *weights),
        *(requests, slots, width, torch.get_num_threads()),
    )


def _addresses(*tensors: Tensor | None) -> list[int | None]:
    return [None if x is None else x.data_ptr() for x in tensors]


@cache
def _functions(kernel: ctypes.CDLL) -> "tuple[ctypes._NamedFuncPointer, ...]":
    """What counts pairs, goes forward and goes backward."""
    functions = kernel.count_pairs, kernel.forward, kernel.backward
    numbers = 1, 5, 5 + 3 + len(_WEIGHTS)  # the inputs, and what is read or written beside them
    for function, number in zip(functions, numbers, strict=True):
        function.argtypes = (ctypes.c_void_p,) * number
    kernel.count_pairs.restype = ctypes.c_int64
    return functions


def _check(
    module: TargetAttention, targets: Tensor, table: Tensor, index: Tensor, cosine: Tensor | None
) -> None:
    width = module.product.shape[1]
    for name, rows in (("targets", targets), ("table", table)):
        if rows.ndim != 2 or rows.shape[1] != width:
            raise ValueError(f"{name} must be (n, {width}), got {tuple(rows.shape)}")
    if index.ndim != 1 or index.dtype != torch.int32:
        raise ValueError(f"index must be int32 (T,), got {index.dtype} {tuple(index.shape)}")
    if (cosine is None) != (module.side is None):
        raise ValueError("cosine must be given exactly when module has side_information")
