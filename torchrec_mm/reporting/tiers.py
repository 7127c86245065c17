"""Do clicked items look more like a user's past clicks than the items passed over?

Shape letters: R requests, C candidates, L behaviours, D item-vector width, N tiers.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.columns.parquet import INT8_LIST, INT64_LIST
from torchrec_mm.columns.parquet_folder import ParquetFolder, concat_files
from torchrec_mm.item_vectors.dequantise import dequantise
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.nn.simtier import SimTier, cosine_similarity

NUM_TIERS = 20
MAX_REQUESTS = 2000
MAX_BEHAVIOURS = 100
CHUNK_REQUESTS = 50
LISTS = {"behaviour_item_ids": INT64_LIST, "candidate_item_ids": INT64_LIST, "labels": INT8_LIST}


@dataclass(frozen=True, kw_only=True)
class TierHistogram:
    """Mean share of behaviours per tier of cosine with the target item.

    clicked, others: (N,) float, each sums to 1; zeros where there was no such impression.
    clicked_impressions, other_impressions: how many each is the mean of.
    """

    clicked: np.ndarray
    others: np.ndarray
    clicked_impressions: int
    other_impressions: int


def tier_histogram(data: Path, vectors: ItemVectors) -> TierHistogram:
    """Histogram the first ``MAX_REQUESTS`` test requests.

    Impressions whose target item or whose every behaviour has no vector are left out.

    Raises:
        InputError: ``data/requests/test`` is missing or not what it should be.
    """
    folder = data / "requests" / "test"
    table = _first_rows(ParquetFolder(folder))
    behaviours, candidates, labels = (
        Jagged.from_arrow(table[name], f"{folder} column {name}") for name in LISTS
    )
    simtier = SimTier(NUM_TIERS)
    shares = np.zeros((2, NUM_TIERS))
    impressions = np.zeros(2, dtype=np.int64)
    for start in range(0, len(candidates), CHUNK_REQUESTS):
        rows = np.arange(start, min(start + CHUNK_REQUESTS, len(candidates)))
        target_RCD, target_mask = _vectors_of(candidates, rows, vectors, candidates.lengths.max())
        past_RLD, past_mask = _vectors_of(behaviours, rows, vectors, MAX_BEHAVIOURS)
        pair_mask = target_mask[:, :, None] & past_mask[:, None, :]
        counts_RCN = simtier(cosine_similarity(target_RCD, past_RLD), pair_mask)
        usable = pair_mask.any(dim=2)
        share = (counts_RCN[usable] / counts_RCN[usable].sum(dim=1, keepdim=True)).numpy()
        label = _padded(labels, rows, candidates.lengths.max())[0][usable.numpy()]
        for value in (0, 1):
            shares[value] += share[label == value].sum(axis=0)
            impressions[value] += np.count_nonzero(label == value)
    others, clicked = shares / np.maximum(impressions, 1)[:, None]
    return TierHistogram(
        clicked=clicked,
        others=others,
        clicked_impressions=int(impressions[1]),
        other_impressions=int(impressions[0]),
    )


def _first_rows(requests: ParquetFolder) -> pa.Table:
    """LISTS of the first ``MAX_REQUESTS`` rows."""
    requests.check(LISTS)
    tables, rows = [], 0
    for table, _ in requests.chunks(LISTS):
        tables.append(table)
        rows += table.num_rows
        if rows >= MAX_REQUESTS:
            break
    return concat_files(table.select(list(LISTS)) for table in tables)[:MAX_REQUESTS]


def _vectors_of(
    lists: Jagged, rows: np.ndarray, vectors: ItemVectors, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors (R, width, D) float32 of the lists' newest ids, and mask (R, width)."""
    ids, real = _padded(lists, rows, width)
    values, known = vectors.lookup(ids)
    return dequantise(torch.from_numpy(values)), torch.from_numpy(known & real)


def _padded(lists: Jagged, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The last ``width`` values of some lists, (R, width), and where they are real."""
    slots = lists.offsets[rows + 1][:, None] - 1 - np.arange(width)
    real = slots >= lists.offsets[rows][:, None]
    values = lists.values if len(lists.values) else np.zeros(1, lists.values.dtype)
    return np.where(real, values[np.where(real, slots, 0)], 0), real
