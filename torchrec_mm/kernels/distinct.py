"""The distinct ids of a batch, each to be looked up once.

Shape letters: T ids, U distinct ids.
"""

from ctypes import CDLL, c_int64, c_void_p

import torch
from torch import Tensor

from torchrec_mm.kernels.build import compiled


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Number the ids by first occurrence; unlike ``torch.unique`` nothing is sorted.

    Args:
        ids: (T,) int32 or int64, T < 2**31, any values; (0,) gives two empty tensors.

    Returns:
        (U,) of the dtype of ``ids``: the distinct ids in order of first occurrence.
        (T,) int32 ``inverse``: ``unique[inverse] == ids``.

    Raises:
        ValueError: ``ids`` is of another dtype or shape.
    """
    if ids.ndim != 1 or ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"ids must be int32 or int64 (T,), got {ids.dtype} {tuple(ids.shape)}")
    kernel = compiled("distinct") if ids.device.type == "cpu" else None
    return distinct_reference(ids) if kernel is None else _hashed(kernel, ids.contiguous())


def _hashed(kernel: CDLL, ids: Tensor) -> tuple[Tensor, Tensor]:
    function = kernel.distinct_int32 if ids.dtype == torch.int32 else kernel.distinct_int64
    function.argtypes = (c_void_p, c_int64, c_void_p, c_void_p)
    function.restype = c_int64
    unique, inverse = torch.empty_like(ids), torch.empty_like(ids, dtype=torch.int32)
    found = function(ids.data_ptr(), len(ids), unique.data_ptr(), inverse.data_ptr())
    # A copy: a slice would keep the memory of all T ids for as long as it lives.
    return unique[:found].clone(), inverse


def distinct_reference(ids: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`distinct` without a kernel, on any device: sorted, then ranked."""
    unique, inverse = torch.unique(ids, return_inverse=True)
    place = torch.arange(len(ids), device=ids.device)
    first = place.new_full(unique.shape, len(ids)).scatter_reduce_(0, inverse, place, "amin")
    order = first.argsort()
    rank = torch.empty_like(order).scatter_(0, order, place[: len(order)])
    return unique[order], rank[inverse].int()
