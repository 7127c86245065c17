"""Requests to one batch: distinct items and table rows once, everything else by index.

Shape letters: R requests, I impressions, S item slots, K kept behaviours, L recent behaviours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.encoded.encoded import EncodedItems, RequestArrays
from torchrec_mm.data.stream.batches import ITEM_ID, USER_ID, RequestBatch, SearchResults
from torchrec_mm.data.stream.search import GeneralSearch
from torchrec_mm.kernels.distinct import distinct


@dataclass(frozen=True)
class Collator:
    """What a model wants in its batches.

    items: what item numbers mean. has_tables: whether the model has ID tables.
    behaviour_features: the behaviour attributes that it has tables for.
    max_behaviours: the newest behaviours of a request that target attention sees.
    raw_ids: those of RAW_IDS whose tables take ids as they are.
    vectors: item vectors to put into the batch, or None. search: the general search, or None.
    """

    items: EncodedItems
    has_tables: bool
    behaviour_features: tuple[str, ...]
    max_behaviours: int
    raw_ids: tuple[str, ...] = ()
    vectors: "SlotVectors | None" = None
    search: GeneralSearch | None = None

    def __call__(
        self, share: RequestArrays, loss_weight: float, masked: bool = False
    ) -> RequestBatch:
        """Collect the requests of ``share``, at least one.

        Args:
            share: the requests. loss_weight: see ``RequestBatch``.
            masked: mask all candidates out: the batch is only there to keep a rank in step.
        """
        num_impressions = len(share.labels)
        recent, recent_positions = share.behaviours.newest(self.max_behaviours)
        wanted = [share.candidates.values, recent.values]
        found = None
        if self.search is not None:
            found = self.search(share.candidates, share.behaviours)
            wanted.append(found.kept_items.ravel())
        items, slots = _distinct(np.concatenate(wanted))
        candidate_slots = slots[:num_impressions]
        recent_slots = slots[num_impressions : num_impressions + len(recent.values)]
        candidate_index, candidate_mask = pad(candidate_slots, share.candidates.lengths)
        behaviour_index, behaviour_mask = pad(recent_slots, recent.lengths)
        labels, _ = pad(share.labels, share.candidates.lengths)
        tables = _ItemTables.of(self, items, share, recent, recent_positions)
        vectors = vector_mask = None
        if self.vectors is not None:
            vectors, vector_mask = self.vectors(items)
        return RequestBatch(
            item_ids=one_id_bags({n: rows for n, rows in tables.rows.items() if n == ITEM_ID}),
            features=one_id_bags({n: rows for n, rows in tables.rows.items() if n != ITEM_ID}),
            raw_ids=one_id_bags(tables.raw_ids),
            item_index=torch.from_numpy(tables.item_index),
            candidate_index=_int64(candidate_index),
            candidate_mask=torch.from_numpy(candidate_mask & (not masked)),
            behaviour_index=_int64(behaviour_index),
            behaviour_mask=torch.from_numpy(behaviour_mask),
            behaviour_attribute_index=_int64(tables.attribute_index),
            vectors=vectors,
            vector_mask=vector_mask,
            search=None
            if found is None
            else SearchResults(
                request=torch.from_numpy(found.request),
                position=torch.from_numpy(np.flatnonzero(candidate_mask)),
                kept_index=torch.from_numpy(
                    slots[num_impressions + len(recent.values) :].reshape(found.kept_items.shape)
                ),
                kept_length=found.kept_length,
                kept_cosine=found.kept_cosine,
                tiers=found.tiers,
            ),
            labels=torch.from_numpy(labels.astype(np.float32)),
            loss_weight=torch.tensor(loss_weight, dtype=torch.float32),
            rows=torch.from_numpy(share.rows),
        )


@dataclass(frozen=True)
class SlotVectors:
    """The vectors of a batch's items.

    gather: a ``VectorSource``'s. rows: (U,) int, row of each item, -1 without a vector.
    """

    gather: Callable[[np.ndarray], tuple[torch.Tensor, torch.Tensor]]
    rows: np.ndarray

    def __call__(self, items: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return self.gather(self.rows[items])


@dataclass(frozen=True)
class _ItemTables:
    """What to look up by feature: rows of tables, and raw ids.

    The indices lead to them, as in ``RequestBatch``.
    """

    rows: dict[str, np.ndarray]
    raw_ids: dict[str, np.ndarray]
    item_index: np.ndarray
    attribute_index: np.ndarray

    @classmethod
    def of(
        cls,
        collator: Collator,
        items: np.ndarray,
        share: RequestArrays,
        recent: Jagged,
        recent_positions: np.ndarray,
    ) -> "_ItemTables":
        longest = max(int(recent.lengths.max(initial=0)), 1)
        if not collator.has_tables:
            nothing = np.zeros((0, len(items)), np.int32), np.zeros((0, len(share), longest))
            return cls({}, {}, *nothing)
        raw = {USER_ID: lambda: share.user_ids, ITEM_ID: lambda: collator.items.item_ids[items]}
        raw_ids = {name: raw[name]() for name in collator.raw_ids}
        rows = {name: r for name, r in share.request_rows.items() if name not in raw_ids}
        item_index, attribute_index = [], []
        for name, table in zip(collator.items.features, collator.items.rows, strict=True):
            if name in raw_ids:
                item_index.append(np.arange(len(items), dtype=np.int32))
                continue
            rows[name], index = _distinct(table[items])
            item_index.append(index)
        for name in collator.behaviour_features:
            rows[name], index = _distinct(share.behaviour_rows[name][recent_positions])
            attribute_index.append(pad(index, recent.lengths)[0])
        shape = (len(attribute_index), len(share), longest)
        return cls(rows, raw_ids, np.stack(item_index), np.array(attribute_index).reshape(shape))


def pad(values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists one after another to a matrix of the longest, and its mask.

    Args:
        values: (t,) the R lists. lengths: (R,) int64 summing to t.

    Returns:
        (R, max(lengths, 1)) like ``values`` with zeros in padding, and bool, True where real.
    """
    mask = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]
    padded = np.zeros(mask.shape, dtype=values.dtype)
    padded[mask] = values
    return padded, mask


def one_id_bags(rows: Mapping[str, np.ndarray]) -> KeyedJaggedTensor | None:
    """One bag of one id for each row number; the shorter features end in empty bags."""
    if not rows:
        return None
    stride = max(len(ids) for ids in rows.values())
    lengths = np.zeros((len(rows), stride), dtype=np.int32)
    for lengths_of_table, ids in zip(lengths, rows.values(), strict=True):
        lengths_of_table[: len(ids)] = 1
    return KeyedJaggedTensor(
        keys=list(rows),
        values=torch.from_numpy(np.concatenate(list(rows.values())).astype(np.int64)),
        lengths=torch.from_numpy(lengths.reshape(-1)),
        stride=stride,
    )


def _distinct(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) int32 to its distinct values and the (T,) int32 index of each."""
    values, index = distinct(torch.from_numpy(ids))
    return values.numpy(), index.numpy()


def _int64(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64, copy=False))
