"""Folds of requests, where models are trained side by side, each without one of them.

Shape letters: R requests, I impressions, T behaviours, P pairs, K folds.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.columns.jagged import Jagged, offsets_of
from torchrec_mm.data.stream.batches import FoldEnds, FurtherBehaviours, ListEnds, RequestBatch

# Source: SplitMix64 (Steele et al., 2014).
_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


def folds_of(rows: np.ndarray, folds: int) -> np.ndarray:
    """The fold of each request: a hash of its number in its split, whatever batch it is in.

    Args:
        rows: (R,) int64, as in ``RequestArrays``. folds: K, at least 1.

    Returns:
        (R,) int64 in [0, K).
    """
    mixed = (rows.astype(np.uint64) + np.uint64(1)) * _STEP
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed % np.uint64(folds)).astype(np.int64)


def by_fold(rows: np.ndarray, folds: int) -> np.ndarray:
    """(R,) int64 positions that bring requests into the order of their folds, else as they are."""
    return np.argsort(folds_of(rows, folds), kind="stable")


def fold_ends(
    rows: np.ndarray,
    folds: int,
    candidates: Jagged,
    behaviours: Jagged,
    sequences: Sequence[Jagged],
) -> FoldEnds:
    """Where folds lie among requests in the order of ``by_fold``, and in their lists."""
    ends = np.searchsorted(folds_of(rows, folds), np.arange(folds + 1))

    def at_ends(offsets: np.ndarray) -> tuple[int, ...]:
        return tuple(offsets[ends].tolist())

    def of_list(items: Jagged) -> ListEnds:
        pairs = offsets_of(candidates.lengths * items.lengths)
        return ListEnds(at_ends(items.offsets), at_ends(pairs))

    return FoldEnds(
        tuple(ends.tolist()),
        at_ends(candidates.offsets),
        of_list(behaviours),
        tuple(map(of_list, sequences)),
    )


def without_fold(batch: RequestBatch, fold: int) -> RequestBatch:
    """What MAKE is to see of a batch, which has ``folds``, with none of the requests of ``fold``.

    Item slots stay where they are. Of what other models look at, nothing is in it.
    """
    ends, search = batch.folds, batch.search
    assert ends is not None and search is not None and search.cosine is not None

    def rest(values: Tensor, of: tuple[int, ...]) -> Tensor:
        return torch.cat([values[: of[fold]], values[of[fold + 1] :]])

    def rest_of_lists(offsets: Tensor, of: tuple[int, ...]) -> Tensor:
        first, end = ends.requests[fold], ends.requests[fold + 1]
        later = offsets[end + 1 :] - (of[fold + 1] - of[fold])
        return torch.cat([offsets[: first + 1], later])

    def rest_of_sequence(further: FurtherBehaviours, of: ListEnds) -> FurtherBehaviours:
        return replace(
            further,
            slots=rest(further.slots, of.behaviours),
            offsets=rest_of_lists(further.offsets, of.behaviours),
            cosine=None if further.cosine is None else rest(further.cosine, of.pairs),
        )

    request = rest(batch.request, ends.candidates)
    request[ends.candidates[fold] :] -= ends.requests[fold + 1] - ends.requests[fold]
    return replace(
        batch,
        candidates=rest(batch.candidates, ends.candidates),
        request=request,
        candidate_offsets=rest_of_lists(batch.candidate_offsets, ends.candidates),
        behaviours=rest(batch.behaviours, ends.behaviours.behaviours),
        behaviour_offsets=rest_of_lists(batch.behaviour_offsets, ends.behaviours.behaviours),
        search=replace(search, cosine=rest(search.cosine, ends.behaviours.pairs)),
        labels=rest(batch.labels, ends.candidates),
        rows=rest(batch.rows, ends.requests),
        weights=None if batch.weights is None else rest(batch.weights, ends.candidates),
        sequences=tuple(map(rest_of_sequence, batch.sequences, ends.sequences)),
        folds=None,
    )
