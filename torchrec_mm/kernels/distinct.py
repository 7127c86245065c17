"""The distinct ids of a batch, each to be looked up once.

Shape letters: T ids, U distinct ids.
"""

import ctypes
from functools import cache

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.kernels.build import compiled

_DTYPES = (torch.int32, torch.int64)


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
    if ids.ndim != 1 or ids.dtype not in _DTYPES:
        raise ValueError(f"ids must be int32 or int64 (T,), got {ids.dtype} {tuple(ids.shape)}")
    kernel = compiled("distinct") if ids.device.type == "cpu" else None
    if kernel is None:
        return distinct_reference(ids)
    unique, inverse = _hashed(kernel, ids.numpy())
    return torch.from_numpy(unique), torch.from_numpy(inverse)


def distinct_array(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """:func:`distinct` of an array: of a small batch's ids, tensors would cost more than numbering.

    ``ids``: (T,) int32 or int64, which is not checked.
    """
    kernel = compiled("distinct")
    if kernel is None:
        unique, inverse = distinct_reference(torch.from_numpy(ids))
        return unique.numpy(), inverse.numpy()
    return _hashed(kernel, ids)


def _hashed(kernel: ctypes.CDLL, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids = np.ascontiguousarray(ids)
    unique, inverse = np.empty_like(ids), np.empty(len(ids), np.int32)
    pointers = ids.ctypes.data, len(ids), unique.ctypes.data, inverse.ctypes.data
    found = _function(kernel, ids.itemsize)(*pointers)
    # A copy: a slice would keep the memory of all T ids for as long as it lives.
    return unique[:found].copy(), inverse


@cache
def _function(kernel: ctypes.CDLL, itemsize: int) -> "ctypes._NamedFuncPointer":
    function = kernel[f"distinct_int{8 * itemsize}"]
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    function.argtypes, function.restype = (pointer, count, pointer, pointer), count
    return function


def distinct_reference(ids: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`distinct` without a kernel, on any device: sorted, then ranked."""
    unique, inverse = torch.unique(ids, return_inverse=True)
    place = torch.arange(len(ids), device=ids.device)
    first = place.new_full(unique.shape, len(ids)).scatter_reduce_(0, inverse, place, "amin")
    order = first.argsort()
    rank = torch.empty_like(order).scatter_(0, order, place[: len(order)])
    return unique[order], rank[inverse].int()
