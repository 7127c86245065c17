"""How good the vectors are before any ranker: held-out searches against all items.

Shape letters: N items, Q held-out searches, M modalities, D item-vector width.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.metrics.retrieval import (
    Vectors,
    hard_negative_accuracy,
    mean_reciprocal_rank,
    purchased_ranks,
    recall_at,
)


def retrieval_report(
    items: dict[str, Tensor],
    queries: dict[str, Tensor],
    purchased: np.ndarray,
    hard: np.ndarray,
) -> dict[str, Any]:
    """Retrieval of each modality, and of all together by the mean of their cosines.

    A search counts where its query and its purchased item share a modality. Queries that occur in
    training as well are not excluded: popular queries repeat in real use too.

    Args:
        items: (N, D) unit vectors by modality, zeros where missing.
        queries: (Q, D) unit vectors of the held-out searches by modality, likewise.
        purchased: (Q,) int64 rows of ``items``.
        hard: (Q, H) int64 rows of ``items``, -1 in empty slots.

    Returns:
        The fused figures ("recall@1", ..., "searches"), and under "modalities" the same for each.
    """
    rows, slots = torch.from_numpy(purchased), torch.from_numpy(hard)
    single = {
        modality: _figures(_stack([items[modality]]), _stack([queries[modality]]), rows, slots)
        for modality in items
    }
    fused = _figures(_stack(list(items.values())), _stack(list(queries.values())), rows, slots)
    return fused | {"items": len(next(iter(items.values()))), "modalities": single}


def _stack(by_modality: list[Tensor]) -> Vectors:
    values = torch.stack([vectors.cpu() for vectors in by_modality], dim=1)
    return Vectors(values, values.any(dim=2))


def _figures(items: Vectors, queries: Vectors, purchased: Tensor, hard: Tensor) -> dict[str, Any]:
    usable = (queries.mask & items.mask[purchased]).any(dim=1)
    queries, purchased, hard = queries[usable], purchased[usable], hard[usable]
    if len(queries) == 0:
        return {"searches": 0}
    ranks = purchased_ranks(queries, items, purchased)
    return {
        "recall@1": recall_at(ranks, 1),
        "recall@10": recall_at(ranks, 10),
        "recall@100": recall_at(ranks, 100),
        "mrr": mean_reciprocal_rank(ranks),
        "hard_negative_accuracy": hard_negative_accuracy(queries, items, purchased, hard),
        "searches": len(queries),
    }
