"""What metrics.json says of a data set, scored by all ranks and held by none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from torchrec_mm.columns.text_ids import IdTexts
from torchrec_mm.data.contract.items import ItemCatalogue
from torchrec_mm.data.encoded.encoded import EncodedItems, EncodedRequests, RequestArrays
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.metrics.impression_files import ImpressionFiles
from torchrec_mm.metrics.log_loss import losses_of
from torchrec_mm.metrics.slices import (
    SLICES,
    age_slices,
    finite_or_none,
    frequency_slices,
    measure_slices,
)
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.scoring.prediction_files import (
    PER_IMPRESSION,
    PER_REQUEST,
    RankPredictions,
    impression_rows,
    merge_predictions,
    request_rows,
)
from torchrec_mm.scoring.predictions import Scored, shared_folder
from torchrec_mm.scoring.unseen import categorical_features, in_words, unseen_counts


@dataclass(frozen=True)
class Evaluated:
    """The data set that is scored, and what is known of its items.

    frequency: how often training showed each. has_vector: (U,) bool by item number, True where
    the item has a vector; None for a model without vectors.
    """

    data: EncodedRequests
    frequency: ItemFrequency
    has_vector: np.ndarray | None


def measure(
    scored: Iterable[Scored],
    evaluated: Evaluated,
    run_dir: Path,
    worker: Worker,
    predictions: Path | None = None,
) -> dict[str, Any]:
    """The figures of metrics.json that depend on data and logits, on the first rank. Collective.

    Every rank writes what it scored to files in the run folder, which the first rank measures and
    merges a window at a time, so no process holds all impressions. Where impressions have weights,
    log_loss is their weighted mean, and AUC and GAUC know nothing of it.

    Args:
        scored: this rank's requests, ascending; all ranks' together are the data set.
        evaluated: what was scored.
        run_dir: on storage that all ranks share, as run folders are. worker: this rank.
        predictions: Parquet file for every impression's logit, in the order of the data set.
    """
    read = RequestReader(evaluated.data)
    coverage, weighted = np.zeros(2, np.int64), np.zeros(2)
    unseen = np.zeros((len(categorical_features(evaluated.data)), 2), np.int64)
    with shared_folder(run_dir / ".evaluated", worker) as folder:
        files = ImpressionFiles(folder, worker.rank, SLICES)
        with RankPredictions(folder, worker.rank) as rows:
            for part in scored:
                requests = read(part.requests)
                coverage += covered(requests, evaluated.has_vector)
                unseen += unseen_counts(requests, evaluated.data)
                weighted += weighted_losses(part, requests.weights)
                users = requests.user_ids[requests.candidates.owners()]
                files.add(users, part.labels, part.logits, slice_masks(requests, evaluated))
                if predictions:
                    item_ids = evaluated.data.items.item_ids[requests.candidates.values]
                    rows.add(impression_rows(part, users, item_ids))
        files.flush()
        total = torch.from_numpy(np.vstack([coverage, unseen])).to(worker.device)
        losses = torch.from_numpy(weighted).to(worker.device)
        dist.all_reduce(total)  # also waits for everyone's files
        dist.all_reduce(losses)
        if not worker.is_first:
            return {}
        if predictions:
            merge_predictions(folder, predictions, PER_IMPRESSION)
        (with_vector, seen), *unseen_total = total.tolist()
        share = None if evaluated.has_vector is None else with_vector / seen
        figures = measure_slices(folder) | {
            "vector_coverage": share,
            "unseen": in_words(evaluated.data, unseen_total),
        }
        if evaluated.data.weight_sums is not None:
            loss, weight = losses.tolist()
            figures["log_loss"] = finite_or_none(loss / weight) if weight else None
        return figures


def write_scores(
    scored: Iterable[Scored],
    data: EncodedRequests,
    folder: Path,
    worker: Worker,
    output: Path,
    texts: Mapping[str, IdTexts],
) -> None:
    """Write a Parquet file with a row a request, ``PER_REQUEST``, in their order. Collective.

    Args:
        scored: this rank's requests, ascending; all ranks' together are ``data``.
        folder: an empty one that all ranks share. worker: this rank.
        output: file to create or replace, whole or not at all.
        texts: of the ids of user_id, item_id, both or neither, to be written in their place.
    """
    read = RequestReader(data)
    with RankPredictions(folder, worker.rank) as rows:
        for part in scored:
            rows.add(request_rows(part, read(part.requests), data.items, texts))
    dist.barrier()  # everyone's files are there
    if worker.is_first:
        merge_predictions(folder, output, PER_REQUEST)


class RequestReader:
    """Requests of a data set by number, with the row groups of the last call in memory."""

    def __init__(self, data: EncodedRequests) -> None:
        self.data = data
        self.held: dict[int, RequestArrays] = {}

    def __call__(self, rows: np.ndarray) -> RequestArrays:
        """The requests ``rows``, (n,) int64 ascending, n >= 1."""
        starts = self.data.group_starts
        touched = np.unique(np.searchsorted(starts, rows, side="right") - 1).tolist()
        self.held = {
            group: self.held[group]
            if group in self.held
            else self.data.read(self.data.groups[group])
            for group in touched
        }
        arrays = RequestArrays.concatenate(list(self.held.values()))
        return arrays.take(np.searchsorted(arrays.rows, rows))


def covered(requests: RequestArrays, has_vector: np.ndarray | None) -> np.ndarray:
    """(2,) int64: candidates and behaviours whose item has a vector, and all of them."""
    if has_vector is None:
        return np.zeros(2, np.int64)
    behaviours = (requests.behaviours, *requests.sequences.values())
    seen = np.concatenate([each.values for each in (requests.candidates, *behaviours)])
    return np.array([np.count_nonzero(has_vector[seen]), len(seen)])


def weighted_losses(scored: Scored, weights: np.ndarray | None) -> np.ndarray:
    """(2,) float64: the sum of the impressions' weighted losses, and that of their weights."""
    if weights is None:
        return np.zeros(2)
    return np.array([losses_of(scored.labels, scored.logits) @ weights, weights.sum(dtype=float)])


def slice_masks(requests: RequestArrays, evaluated: Evaluated) -> dict[str, np.ndarray]:
    """Membership of slices of each impression, by slice."""
    items: EncodedItems = evaluated.data.items
    candidates = requests.candidates
    masks = frequency_slices(evaluated.frequency(items.item_ids[candidates.values]))
    if requests.timestamps is not None and items.created_at is not None:
        created_at = items.created_at[candidates.values]
        known = created_at != ItemCatalogue.UNKNOWN_TIME
        masks |= age_slices(requests.timestamps[candidates.owners()], created_at, known)
    return masks
