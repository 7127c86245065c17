"""The floor of every table: smoothed user and item click rates, no network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.data.encoded.encoded import EncodedItems, EncodedRequests, RequestArrays
from torchrec_mm.ids import IdIndex

PRIOR_IMPRESSIONS = 20.0


@dataclass(frozen=True)
class BiasModel:
    """Log-odds of the click rate, plus what the user and the item add to it.

    base: () float. user_ids, item_ids: int64, ascending; user_offsets, item_offsets: float64
    log-odds relative to ``base``, smoothed towards 0 as if PRIOR_IMPRESSIONS impressions at the
    base rate had been seen of every user and item. Unknown ids add nothing.
    """

    base: float
    user_ids: np.ndarray
    user_offsets: np.ndarray
    item_ids: np.ndarray
    item_offsets: np.ndarray

    @classmethod
    def fit(cls, train: EncodedRequests) -> "BiasModel":
        """Count clicks and impressions of each user and item once, by their weights if any."""
        rate = float(np.clip(train.click_rate, 1e-6, 1 - 1e-6))
        users, items = [], []
        for group in train.groups:
            part = train.read(group)
            of_users = part.user_ids[part.candidates.owners()]
            users.append(_counts(of_users, part.labels, part.weights))
            of_items = train.items.item_ids[part.candidates.values]
            items.append(_counts(of_items, part.labels, part.weights))
        offsets = (*_smoothed_offsets(users, rate), *_smoothed_offsets(items, rate))
        return cls(_log_odds(rate), *offsets)

    def logits(self, requests: RequestArrays, items: EncodedItems) -> np.ndarray:
        """(impressions,) float32 click log-odds."""
        users = _offset_of(self.user_ids, self.user_offsets, requests.user_ids)
        item_ids = items.item_ids[requests.candidates.values]
        offsets = _offset_of(self.item_ids, self.item_offsets, item_ids)
        return (self.base + users[requests.candidates.owners()] + offsets).astype(np.float32)

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {name: torch.as_tensor(value) for name, value in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "BiasModel":
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        return cls(float(arrays.pop("base")), **arrays)


def _counts(
    ids: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct ids, their impressions and their clicks, weighted."""
    known, inverse = np.unique(ids, return_inverse=True)
    clicks = labels if weights is None else weights * labels
    return known, np.bincount(inverse, weights), np.bincount(inverse, clicks)


def _smoothed_offsets(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], rate: float
) -> tuple[np.ndarray, np.ndarray]:
    ids, impressions, clicks = (np.concatenate(column) for column in zip(*parts, strict=True))
    known, inverse = np.unique(ids, return_inverse=True)
    impressions, clicks = (np.bincount(inverse, weights=part) for part in (impressions, clicks))
    smoothed = (clicks + PRIOR_IMPRESSIONS * rate) / (impressions + PRIOR_IMPRESSIONS)
    return known, _log_odds(smoothed) - _log_odds(rate)


def _log_odds(rate: Any) -> Any:  # a number or an array of them
    return np.log(rate) - np.log1p(-rate)


def _offset_of(known: np.ndarray, offsets: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.append(offsets, 0.0)[IdIndex(known).rows(ids)]  # row -1 is the appended zero
