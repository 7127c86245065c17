"""Search pairs of one modality: which contents there are, and batches of them.

Shape letters: N items, S searches, C distinct contents, B searches of a batch, H hard negatives.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.data.item_content import Content
from torchrec_mm.pretraining.tower import Inputs, SearchBatch

Load = Callable[[np.ndarray], Inputs]


class ContentPool:
    """The distinct pictures, or texts, of items and queries under one numbering.

    Equal contents get one number: each is encoded once, and "the same query" is the same number.

    item_contents: (N,) int64 in [0, C), -1 where the item has none. query_contents: (S,) likewise.
    lengths: (C,) int64, of texts.
    """

    def __init__(self, items: Content, queries: Content) -> None:
        numbers: dict[bytes | str, int] = {}
        keys = [*items.keys(), *queries.keys()]
        contents = np.array(
            [-1 if key is None else numbers.setdefault(key, len(numbers)) for key in keys]
        )
        self.item_contents, self.query_contents = np.split(contents, [len(items)])
        self._items, self._queries = items, queries
        distinct, first = np.unique(contents, return_index=True)
        self._row = first[distinct >= 0]
        self.lengths = np.concatenate([items.lengths(), queries.lengths()])[self._row]

    def __len__(self) -> int:
        return len(self._row)

    def load(self, contents: np.ndarray) -> Inputs:
        """(M,) int64 contents -> M inputs of the backbone, in that order."""
        rows = self._row[contents]
        of_item = rows < len(self._items)
        parts = [
            self._items.load(rows[of_item]),
            self._queries.load(rows[~of_item] - len(self._items)),
        ]
        back = np.argsort(np.argsort(~of_item, kind="stable"), kind="stable")
        if isinstance(parts[0], Tensor):
            return torch.cat(parts)[torch.from_numpy(back)]
        together = [*parts[0], *parts[1]]
        return [together[place] for place in back]


@dataclass(frozen=True)
class PairSet:
    """Searches that one tower can learn from: query and purchased item both have the modality.

    query, positive: (S,) int64 contents. hard: (S, H) int64 contents, -1 in empty slots.
    """

    query: np.ndarray
    positive: np.ndarray
    hard: np.ndarray

    def __len__(self) -> int:
        return len(self.query)

    def batch(self, rows: np.ndarray, load: Load, device: torch.device) -> SearchBatch:
        """The searches ``rows`` (B,); ``load`` turns contents into inputs of the encoder."""
        hard = self.hard[rows]
        return SearchBatch(
            query=load(self.query[rows]),
            positive=load(self.positive[rows]),
            hard=load(hard[hard >= 0]),
            hard_mask=torch.from_numpy(hard >= 0).to(device),
            positive_ids=torch.from_numpy(self.positive[rows]).to(device),
            query_ids=torch.from_numpy(self.query[rows]).to(device),
        )


def make_pairs(
    pool: ContentPool, purchased: np.ndarray, hard: np.ndarray, searches: np.ndarray
) -> PairSet:
    """The usable ones among some searches.

    Args:
        pool: contents of the modality.
        purchased: (S,) int64 item rows, as ``Searches`` holds them.
        hard: (S, H) int64 item rows, -1 in empty slots.
        searches: (T,) int64 rows of the searches to use.
    """
    has_both = (pool.query_contents >= 0) & (pool.item_contents[purchased] >= 0)
    kept = searches[has_both[searches]]
    hard_contents = np.where(hard[kept] >= 0, pool.item_contents[hard[kept]], -1)
    return PairSet(pool.query_contents[kept], pool.item_contents[purchased[kept]], hard_contents)


def rank_batches(
    num_pairs: int, batch_size: int, seed: int, rank: int, world_size: int
) -> list[np.ndarray]:
    """This rank's share of each global batch of one shuffled pass; the same pass on every rank.

    Args:
        num_pairs: of the pair set; the last incomplete batch is left out.
        batch_size: searches of a global batch, a multiple of ``world_size``.
        seed: differs from epoch to epoch.
        rank: in [0, world_size).
        world_size: number of ranks.

    Returns:
        num_pairs // batch_size arrays of batch_size / world_size rows.
    """
    order = np.random.default_rng(seed).permutation(num_pairs)
    whole = order[: num_pairs - num_pairs % batch_size]
    return list(whole.reshape(-1, world_size, batch_size // world_size)[:, rank])
