"""InfoNCE: tell the right key from very many wrong ones, in memory that does not grow with them.

Shape letters: B queries, M keys of a block, C keys of a chunk, D vector width, A kinds of ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torchrec_mm.kernels.on_gpu import runs_on_gpu
from torchrec_mm.losses.false_negatives import shared_ids, shared_mask
from torchrec_mm.losses.running_softmax import RunningSoftmax

CHUNK_KEYS = 8192  # large enough for matrix products, small enough for a processor's cache
DEVICE_CHUNK_KEYS = 65_536  # elsewhere, where each chunk costs a dozen launches


@dataclass(frozen=True)
class Negatives:
    """Keys shared by all queries: those of the batch, or of the memory bank.

    keys: (M, D) of any float type, unit vectors; anything finite where not ``valid``. ids: (M, A)
    int64, by kind, -1 for none: a key is no negative of a query that has one of its ids. valid:
    (M,) bool, True for a key that is there; None if all are.

    >>> block = Negatives(keys=torch.eye(3), ids=torch.tensor([[5], [6], [-1]]))
    >>> [len(block.keys), block.valid]
    [3, None]
    """

    keys: Tensor
    ids: Tensor
    valid: Tensor | None = None


def info_nce(
    query: Tensor,
    positive: Tensor,
    ids: Tensor,
    negatives: Sequence[Negatives],
    temperature: Tensor,
    further: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each query's positive key against its negatives.

    -log(exp(q.p / t) / (exp(q.p / t) + sum over negatives of exp(q.n / t))). Keys are taken chunk
    by chunk, with a running maximum and sum; the same pass gathers the mean key under the softmax,
    from which both gradients follow, so that nothing of B x M numbers is ever held.

    Computes in the type of the query, float32 at least: call it outside of autocast. Can be
    differentiated once.

    Args:
        query: (B, D) float, unit vectors; receives the gradient.
        positive: (B, D) float, unit vectors, the key each query should find; no gradient.
        ids: (B, A) int64, by kind, -1 for none, such as the purchased item and the query's own.
            The positive itself may be among the negatives: its id leaves it out.
        negatives: blocks of keys, without gradient; may be empty.
        temperature: scalar > 0 that divides the cosine; receives the gradient.
        further: (R, 2) int64, queries in [0, B) and an id of the first kind, of keys that are no
            negatives of that query either, such as what else it found; None for none.

    Returns:
        (B,) float, at least 0; 0 for a query without negatives.

    Raises:
        ValueError: ids or valid of a block do not have a row for each of its keys.

    Source: van den Oord et al. 2018, arXiv:1807.03748, eq. 4; memory-bank negatives as in He et
    al., CVPR 2020, arXiv:1911.05722.

    >>> keys, ids = torch.eye(2), torch.tensor([[5], [6]])
    >>> info_nce(keys, keys, ids, [Negatives(keys, ids)], torch.tensor(1.0))
    tensor([0.3133, 0.3133])
    """
    for block in negatives:
        _check(block, ids)
    return _InfoNCE.apply(query, temperature, positive, ids, tuple(negatives), further)


def _check(block: Negatives, ids: Tensor) -> None:
    rows, kinds = len(block.keys), ids.shape[1]
    if block.ids.shape != (rows, kinds):
        raise ValueError(
            f"ids of negatives must be (M, A) = {(rows, kinds)}, got {tuple(block.ids.shape)}"
        )
    if block.valid is not None and (block.valid.shape, block.valid.dtype) != ((rows,), torch.bool):
        raise ValueError(
            f"valid of negatives must be bool (M,) = ({rows},), "
            f"got {block.valid.dtype} {tuple(block.valid.shape)}"
        )


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        temperature: Tensor,
        positive: Tensor,
        ids: Tensor,
        negatives: Sequence[Negatives],
        further: Tensor | None,
    ) -> Tensor:
        # Under a temperature of 0.01 a cosine in half precision would be off by a logit.
        dtype = torch.promote_types(query.dtype, torch.float32)
        exact, positive = query.to(dtype), positive.to(dtype)
        longest = max((len(block.keys) for block in negatives), default=0)
        chunk = min(_chunk_keys(query), longest)
        softmax = RunningSoftmax(exact / temperature, positive, chunk)
        for block in negatives:
            _add(softmax, block, ids, further)
        ctx.save_for_backward(exact, temperature, softmax.mean_key_minus_positive())
        return softmax.nll()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        query, temperature, mean_key_minus_positive = ctx.saved_tensors
        by_query = slope[:, None] * mean_key_minus_positive / temperature
        by_temperature = -(by_query * query).sum() / temperature
        return by_query, by_temperature, None, None, None, None


def _add(softmax: RunningSoftmax, block: Negatives, ids: Tensor, further: Tensor | None) -> None:
    """All of a block's negatives, chunk by chunk."""
    if _in_one_kernel(softmax.query, block.keys):
        _add_in_one_kernel(softmax, block, ids, further)
        return
    if ids.device.type != "cpu":
        _add_without_waiting(softmax, block, ids, further)
        return
    rows, columns = shared_ids(ids, block.ids, further)
    starts = range(0, len(block.keys), CHUNK_KEYS)
    ends = columns.new_tensor([*starts, len(block.keys)])
    bounds = torch.searchsorted(columns, ends).tolist()
    for start, (first, last) in zip(starts, pairwise(bounds), strict=True):
        part = slice(start, start + CHUNK_KEYS)
        valid = None if block.valid is None else block.valid[part]
        pairs = rows[first:last], columns[first:last] - start
        softmax.add(block.keys[part], pairs, valid)


def _add_without_waiting(
    softmax: RunningSoftmax, block: Negatives, ids: Tensor, further: Tensor | None
) -> None:
    """The same where to ask how many pairs there are would be to wait for a device."""
    for start in range(0, len(block.keys), DEVICE_CHUNK_KEYS):
        part = slice(start, start + DEVICE_CHUNK_KEYS)
        valid = None if block.valid is None else block.valid[part]
        softmax.add(block.keys[part], shared_mask(ids, block.ids[part], further), valid)


def _add_in_one_kernel(
    softmax: RunningSoftmax, block: Negatives, ids: Tensor, further: Tensor | None
) -> None:
    """The same on a GPU: no chunks, and no masks in memory."""
    from torchrec_mm.kernels.triton.bank_softmax import bank_softmax

    if len(block.keys):
        sums = bank_softmax(softmax.query, block.keys, ids, block.ids, further, block.valid)
        softmax.merge(*sums)


def _in_one_kernel(query: Tensor, keys: Tensor) -> bool:
    if query.dtype != torch.float32 or not runs_on_gpu(query, keys):
        return False
    from torchrec_mm.kernels.triton.bank_softmax import fits

    return fits(query)


def _chunk_keys(query: Tensor) -> int:
    if _in_one_kernel(query, query):
        return 0
    return CHUNK_KEYS if query.device.type == "cpu" else DEVICE_CHUNK_KEYS
