"""Requests to one batch: distinct items and table rows once, everything else by index.

Shape letters: R requests, I impressions, S item slots, K kept behaviours, U items.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.data.encoded.encoded import EncodedItems, RequestArrays
from torchrec_mm.data.stream.bags import bags_of, one_id_bags
from torchrec_mm.data.stream.batches import ITEM_ID, USER_ID, RequestBatch, SearchResults
from torchrec_mm.data.stream.compare import Compared, Comparison, MakeOfHits, further_behaviours
from torchrec_mm.data.stream.folds import by_fold, fold_ends
from torchrec_mm.data.stream.numbers import target_numbers, with_flags
from torchrec_mm.data.stream.search import GeneralSearch
from torchrec_mm.kernels.distinct import distinct_array


@dataclass(frozen=True)
class Collator:
    """What a model wants in its batches.

    items: what item numbers mean. has_tables: whether the model has ID tables; one without goes by
    vectors alone, and attends to none but behaviours that have one.
    behaviour_features: the behaviour attributes that it has tables for.
    max_behaviours: the newest behaviours of a request that target attention sees.
    raw_ids: those of RAW_IDS whose tables take ids as they are.
    vector_rows: (U,) int32 row of each item's vector, -1 without one; None without vectors.
    shared_ids: features without bags whose tables other features share; they are among the bags.
    gather: a ``VectorSource``'s, where the batch is to hold vectors. search: what compares
    vectors, or None. make: what makes ``RequestBatch.made``, or None; of the search's hits, and the
    impressions where batches begin and end. sequences: events of the further behaviour sequences
    that it looks at. gather_targets: as ``gather``, where it is to hold those of impressions.
    impressions where batches begin and end, and its requests. sequences: events of the further
    behaviour sequences that it looks at. folds: K, for a model that learns without each of K folds
    in turn: a batch's requests then come fold after fold. 1: as they were given.
    """

    items: EncodedItems
    has_tables: bool
    behaviour_features: tuple[str, ...]
    max_behaviours: int
    raw_ids: tuple[str, ...] = ()
    vector_rows: np.ndarray | None = None
    gather: Callable[[np.ndarray], tuple[Tensor, Tensor]] | None = None
    search: GeneralSearch | None = None
    make: MakeOfHits | None = None
    shared_ids: tuple[str, ...] = ()
    sequences: tuple[str, ...] = ()
    gather_targets: Callable[[np.ndarray], tuple[Tensor, Tensor]] | None = None
    folds: int = 1

    def compare(self, shares: Sequence[RequestArrays]) -> list[Compared | None]:
        """What vectors say of the requests of several batches: to compare them at once is faster.

        ``shares``: each with the candidates that its batch is to have. Nothing without a search.
        """
        if self.search is None:
            return [None] * len(shares)
        assert self.vector_rows is not None  # who else would search
        comparison = Comparison(
            self.search, self.vector_rows, self.max_behaviours, self.make, self.sequences
        )
        return list(comparison([self._in_order(share) for share in shares]))

    def __call__(
        self,
        share: RequestArrays,
        loss_weight: float,
        masked: bool = False,
        compared: Compared | None = None,
    ) -> RequestBatch:
        """Collect the requests of ``share``, at least one.

        Args:
            share: the requests. loss_weight: see ``RequestBatch``.
            masked: leave all candidates out: the batch is only there to keep a rank in step.
            compared: what ``compare`` said of it; asked here if None.
        """
        share = self._in_order(share)
        # Looked up all the same: no collection of tables is to be without a bag.
        all_candidates, impression_rows = share.candidates.values, share.impression_rows
        if masked:
            share = share.without_candidates()
        if compared is None:
            (compared,) = self.compare([share])
        recent, recent_positions = share.behaviours.newest(self.max_behaviours)
        attended, is_attended = recent, None
        if self.vector_rows is not None:
            is_attended = self.vector_rows[recent.values] >= 0
        kept = np.empty((0, 0), np.int32) if compared is None else compared.kept_items
        further = [share.sequences[e].newest(self.max_behaviours)[0] for e in self.sequences]
        if not self.has_tables:
            assert self.vector_rows is not None  # else the model would have nothing to go by
            further = [items.where(self.vector_rows[items.values] >= 0) for items in further]
        looked_up = [all_candidates, recent.values, kept.ravel(), *(f.values for f in further)]
        items, slots = distinct_array(np.concatenate(looked_up))
        _, recent_slots, kept_slots, *further_slots = np.split(
            slots, np.cumsum([len(of) for of in looked_up])[:-1]
        )
        if not self.has_tables:
            assert is_attended is not None  # else the model would have nothing to go by
            attended, recent_slots = recent.where(is_attended), recent_slots[is_attended]
        candidates = slots[: len(share.labels)]
        tables = _ItemTables.of(self, items, candidates, share, recent_positions, impression_rows)
        shared = {name: tables.rows.pop(name) for name in self.shared_ids}
        numbers = target_numbers(self.items, share) if self.has_tables else None
        vectors = vector_mask = target_vectors = None
        if self.vector_rows is not None:
            rows = self.vector_rows[items]
            vector_mask = torch.from_numpy(rows >= 0)
            vectors = self.gather(rows)[0] if self.gather else None
            if self.gather_targets:
                target_vectors = self.gather_targets(rows[candidates])[0]
        return RequestBatch(
            item_ids=one_id_bags({n: rows for n, rows in tables.rows.items() if n == ITEM_ID}),
            features=one_id_bags({n: rows for n, rows in tables.rows.items() if n != ITEM_ID}),
            raw_ids=one_id_bags(tables.raw_ids),
            item_index=torch.from_numpy(tables.item_index),
            candidates=torch.from_numpy(candidates),
            request=torch.from_numpy(share.candidates.owners().astype(np.int32)),
            candidate_offsets=torch.from_numpy(share.candidates.offsets),
            behaviours=torch.from_numpy(recent_slots),
            behaviour_offsets=torch.from_numpy(attended.offsets),
            behaviour_attributes=torch.from_numpy(tables.attribute_index),
            most_candidates=int(share.candidates.lengths.max()),
            most_behaviours=int(attended.lengths.max()),
            vectors=vectors,
            vector_mask=vector_mask,
            search=None if compared is None else self._results(compared, kept_slots),
            made=None if compared is None else compared.made,
            labels=torch.from_numpy(share.labels.astype(np.float32)),
            loss_weight=torch.tensor(loss_weight, dtype=torch.float32),
            rows=torch.from_numpy(share.rows),
            impression_index=tables.impression_index,
            request_numbers=with_flags(share.request_numbers) if self.has_tables else None,
            target_numbers=with_flags(numbers),
            weights=None if share.weights is None else torch.from_numpy(share.weights),
            bags=bags_of(share, self.items, items, shared) if self.has_tables else None,
            sequences=further_behaviours(further, further_slots, compared),
            target_vectors=target_vectors,
            folds=fold_ends(share.rows, self.folds, share.candidates, attended, further)
            if self.folds > 1
            else None,
        )

    def _in_order(self, share: RequestArrays) -> RequestArrays:
        return share.take(by_fold(share.rows, self.folds)) if self.folds > 1 else share

    def _results(self, found: Compared, kept_slots: np.ndarray) -> SearchResults:
        """What the network is to see of it; cosines that MAKE has used are none of its business."""
        search = self.search
        assert search is not None  # who else has found it
        kept_index = torch.from_numpy(kept_slots.reshape(found.kept_items.shape))
        return SearchResults(
            kept_index=kept_index if search.kept else None,
            kept_length=found.kept_length if search.kept else None,
            kept_cosine=found.kept_cosine if search.kept else None,
            tiers=found.tiers if search.num_tiers else None,
            cosine=found.cosine if search.pairs and self.make is None else None,
        )


@dataclass(frozen=True)
class _ItemTables:
    """What to look up by feature: rows of tables, and raw ids.

    The indices lead to them, as in ``RequestBatch``.
    """

    rows: dict[str, np.ndarray]
    raw_ids: dict[str, np.ndarray]
    item_index: np.ndarray
    attribute_index: np.ndarray
    impression_index: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        collator: Collator,
        items: np.ndarray,
        candidates: np.ndarray,
        share: RequestArrays,
        recent_positions: np.ndarray,
        impression_rows: Mapping[str, np.ndarray],
    ) -> "_ItemTables":
        attribute_index = np.empty(
            (len(collator.behaviour_features), len(recent_positions)), dtype=np.int32
        )
        places = len(items) + len(candidates)
        if not collator.has_tables:
            return cls({}, {}, np.empty((0, places), np.int32), attribute_index)
        raw = {USER_ID: lambda: share.user_ids, ITEM_ID: lambda: collator.items.item_ids[items]}
        raw_ids = {name: raw[name]() for name in collator.raw_ids}
        rows = {name: r for name, r in share.request_rows.items() if name not in raw_ids}
        num_tables = len(collator.items.features) + len(collator.items.bags)
        item_index = np.empty((num_tables, places), dtype=np.int32)
        of_slots, of_candidates = np.split(item_index, [len(items)], axis=1)
        for place, name in enumerate(collator.items.features):
            if name in raw_ids:
                of_slots[place] = np.arange(len(items))
            else:
                rows[name], of_slots[place] = distinct_array(collator.items.rows[place][items])
        of_slots[len(collator.items.features) :] = np.arange(len(items))  # a bag is a slot's
        of_candidates[:] = of_slots[:, candidates]
        for place, name in enumerate(collator.behaviour_features):
            of_recent = share.behaviour_rows[name][recent_positions]
            rows[name], attribute_index[place] = distinct_array(of_recent)
        of_impressions = []
        for name, of_all in impression_rows.items():
            rows[name], index = distinct_array(of_all)
            of_impressions.append(index[: len(candidates)])
        return cls(
            rows,
            raw_ids,
            item_index,
            attribute_index,
            torch.from_numpy(np.stack(of_impressions)) if of_impressions else None,
        )
