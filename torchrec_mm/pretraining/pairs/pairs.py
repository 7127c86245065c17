"""What each way of training learns from: who should find whom, as rows of the packed content.

Rows [0, N) are items, rows [N, N+S) searches. Shape letters: N items, S searches, T searches to
train on, P pairs, H hard-negative slots.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from torchrec_mm.pretraining.pairs.relevant import Relevant


@dataclass(frozen=True)
class PairSet:
    """P queries, the key that each should find, and hard negatives it should not.

    Both sides, and hard negatives, may use every modality of the run that their row has.
    A pair takes 8 * (2 + H) bytes.

    queries, keys: (P,) int64 rows. hard: (P, H) int64 rows of items, -1 in empty slots. relevant:
    by space, what else equal queries found; without a space nothing is known.
    """

    queries: np.ndarray
    keys: np.ndarray
    hard: np.ndarray
    relevant: Mapping[str, Relevant] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, pairs: np.ndarray) -> "PairSet":
        """Some of the pairs, by (B,) int64 numbers in [0, P) or a (P,) bool mask."""
        return replace(
            self, queries=self.queries[pairs], keys=self.keys[pairs], hard=self.hard[pairs]
        )

    def of_epoch(self, *, epoch: int, seed: int) -> "PairSet":
        """The pairs of an epoch: always the same ones."""
        return self

    def without_items(self, held_out: np.ndarray) -> "PairSet":
        """No pair of a held-out item, as query or key, and no hard negative that is one.

        ``held_out``: (N,) bool, True where training must not see the item.
        """
        seen = self.take(~(_holds(held_out, self.queries) | _holds(held_out, self.keys)))
        return replace(seen, hard=_emptied(seen.hard, held_out))


@dataclass(frozen=True)
class CoClickPairs:
    """A bought item and the items clicked in the same search: item-to-item pairs.

    An epoch takes one clicked item of each search, so that it has as many steps as one of SCL,
    searches without a clicked item aside. No hard negatives: here they are the positives.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467, section 3.1 advises against such pairs.

    bought: (P,) int64 rows of items. clicked: (P, H) int64 rows of items, -1 in empty slots, at
    least one real.
    """

    bought: np.ndarray
    clicked: np.ndarray

    def __len__(self) -> int:
        return len(self.bought)

    def of_epoch(self, *, epoch: int, seed: int) -> PairSet:
        """The pairs of an epoch: each search's clicked item by chance, the same on every rank."""
        real = self.clicked >= 0
        chance = np.random.default_rng((seed, epoch, 1)).random(len(self))
        wanted = (chance * real.sum(axis=1)).astype(np.int64)
        slot = (real.cumsum(axis=1) > wanted[:, None]).argmax(axis=1)
        keys = self.clicked[np.arange(len(self)), slot]
        return PairSet(self.bought, keys, np.empty((len(self), 0), dtype=np.int64))

    def without_items(self, held_out: np.ndarray) -> "CoClickPairs":
        """No pair of a held-out item, see ``PairSet.without_items``."""
        seen = ~held_out[self.bought]
        return _with_clicks(self.bought[seen], _emptied(self.clicked[seen], held_out))


Pairs = PairSet | CoClickPairs


def scl_pairs(
    purchased: np.ndarray,
    hard: np.ndarray,
    num_items: int,
    searches: np.ndarray,
    present: dict[str, np.ndarray],
) -> PairSet:
    """A search finds what was bought from it, and not what was only clicked (SCL).

    A search, or an item, that has no modality of the run is left out.

    Args:
        purchased: (S,) int64 rows of items.
        hard: (S, H) int64 rows of items clicked and not bought, -1 in empty slots.
        num_items: N.
        searches: (T,) int64 in [0, S), the searches to train on.
        present: (N + S,) bool for each modality of the run, True where the row has it.
    """
    has_any = np.logical_or.reduce(list(present.values()))
    kept = searches[has_any[num_items + searches] & has_any[purchased[searches]]]
    negatives = _emptied(hard[kept], ~has_any[:num_items])
    return PairSet(num_items + kept, purchased[kept], negatives)


def co_click_pairs(
    purchased: np.ndarray,
    hard: np.ndarray,
    num_items: int,
    searches: np.ndarray,
    present: dict[str, np.ndarray],
) -> CoClickPairs:
    """What was bought finds what was clicked in the same search; arguments as of ``scl_pairs``.

    A search without a clicked item gives no pair.
    """
    has_any = np.logical_or.reduce(list(present.values()))
    kept = searches[has_any[purchased[searches]]]
    return _with_clicks(purchased[kept], _emptied(hard[kept], ~has_any[:num_items]))


def clip_pairs(num_items: int, present: dict[str, np.ndarray]) -> PairSet:
    """An item finds itself, title to picture and picture to title (CLIP-E).

    Query and key are the same row; the contrasts of the run say which modality each side uses.
    Items that lack one are left out. Arguments as of ``scl_pairs``.
    """
    has_all = np.logical_and.reduce(list(present.values()))[:num_items]
    rows = np.flatnonzero(has_all)
    return PairSet(rows, rows, np.empty((len(rows), 0), dtype=np.int64))


def epoch_order(num_pairs: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch's pairs, the same on every rank: (P,) int64, a permutation."""
    return np.random.default_rng((seed, epoch)).permutation(num_pairs)


def rank_share(
    order: np.ndarray, *, step: int, batch_size: int, rank: int, world_size: int
) -> np.ndarray:
    """This rank's pairs of a global batch; the ranks' shares in turn are the batch.

    An epoch has ``len(order) // batch_size`` steps on every rank: the last incomplete batch is
    left out. To go on in mid-epoch, start at a later step.

    Args:
        order: (P,) as ``epoch_order`` gives it.
        step: in [0, P // batch_size).
        batch_size: pairs of a global batch, a multiple of ``world_size``.
        rank: in [0, world_size).
        world_size: number of ranks.

    Returns:
        (batch_size / world_size,) int64 numbers of pairs.

    Raises:
        ValueError: the batch does not split over the ranks, or the epoch has no such step.
    """
    if batch_size % world_size:
        raise ValueError(f"batch_size must be a multiple of {world_size}, got {batch_size}")
    if not 0 <= step < len(order) // batch_size:
        raise ValueError(f"step must be in [0, {len(order) // batch_size}), got {step}")
    size = batch_size // world_size
    begin = step * batch_size + rank * size
    return order[begin : begin + size]


def _with_clicks(bought: np.ndarray, clicked: np.ndarray) -> CoClickPairs:
    some = (clicked >= 0).any(axis=1)
    return CoClickPairs(bought[some], clicked[some])


def _holds(items: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(P,) bool, True where a row is one of ``items`` (N,) bool; rows of searches are none."""
    is_item = rows < len(items)
    return is_item & items[np.where(is_item, rows, 0)]


def _emptied(hard: np.ndarray, items: np.ndarray) -> np.ndarray:
    """``hard`` (P, H) with -1 in place of each of ``items`` (N,) bool; may be changed in place."""
    hard[items[hard]] = -1  # -1 reads the last item, and stays -1 either way
    return hard
