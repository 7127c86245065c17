"""What one ranking step sees: R requests, their items looked up once, labels.

Nothing is padded: lists lie one after another, request after request.

Shape letters: R requests, I impressions, T behaviours that are attended to, P pairs of an
impression and a searched behaviour of its request, S item slots (the batch's distinct items), K
kept behaviours, N tiers, F item tables, A behaviour attributes, D item-vector width, P numeric
features of a request, G of an item or impression, Q categorical features of an impression.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from torchrec_mm.data.stream.bags import rounded
from torchrec_mm.kernels.target_attention import RequestLists

ITEM_ID, USER_ID = "item_id", "user_id"
RAW_IDS = (USER_ID, ITEM_ID)  # the features whose ids an encoded data set keeps

PartsT = TypeVar("PartsT", bound="BatchParts")


class BatchParts(Pipelineable):
    """A dataclass of tensors, jagged tensors and further parts, or tuples, that move together."""

    def to(self: PartsT, device: torch.device, non_blocking: bool = False) -> PartsT:
        def moved(part: Any) -> Any:
            if isinstance(part, KeyedJaggedTensor) and torch.device(device).type != "cpu":
                part.sync()  # lengths that TorchRec would ask the device for
            return part.to(device=device, non_blocking=non_blocking)

        return self._map(moved)

    def pin_memory(self: PartsT) -> PartsT:
        return self._map(lambda part: part.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        for field in fields(self):
            part = getattr(self, field.name)
            for each in part if isinstance(part, tuple) else (part,):
                if each is not None and not isinstance(each, int):
                    each.record_stream(stream)

    def _map(self: PartsT, change: Callable[[Any], Any]) -> PartsT:
        def changed(part: Any) -> Any:
            if isinstance(part, tuple):
                return tuple(map(changed, part))
            return part if part is None or isinstance(part, int) else change(part)

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})


@dataclass
class SearchResults(BatchParts):
    """``search.SearchHits`` as tensors of a batch, by item slot; None for what no part asks for.

    kept_index: (I, K) int32 slot of each kept behaviour, alike or better first; padding holds any
    slot. kept_length: (I,) int32, how many are real. kept_cosine: (I, K) float32.
    tiers: (I, N) float32, behaviours per tier of cosine, over all that were searched.
    cosine: (P,) float32 of each pair, impression after impression, 0 where either has no vector.
    """

    kept_index: Tensor | None
    kept_length: Tensor | None
    kept_cosine: Tensor | None
    tiers: Tensor | None
    cosine: Tensor | None


@dataclass
class FurtherBehaviours(BatchParts):
    """One further behaviour sequence of a batch's requests.

    slots: (T,) int32 slot of each, oldest first. offsets: (R + 1,) int64, where each request's
    begin. most: length of the longest. tiers: (I, N) and cosine: (P,) as in ``SearchResults``.
    """

    slots: Tensor
    offsets: Tensor
    most: int
    tiers: Tensor | None
    cosine: Tensor | None


@dataclass
class ListEnds(BatchParts):
    """Where folds end among the behaviours of a sequence, and their pairs with impressions."""

    behaviours: tuple[int, ...]
    pairs: tuple[int, ...]


@dataclass
class FoldEnds(BatchParts):
    """Where the folds of a batch lie whose requests come fold after fold.

    Each K + 1 ints: of ``requests``, fold k has [requests[k], requests[k + 1]), and so on of
    impressions, of the behaviours that are attended to, and of each of the further sequences.
    """

    requests: tuple[int, ...]
    candidates: tuple[int, ...]
    behaviours: ListEnds
    sequences: tuple[ListEnds, ...]


@dataclass
class RequestBatch(BatchParts):
    """One batch on one rank, the type TorchRec's pipelines carry.

    item_ids: the distinct rows of the table of item ids, each in a bag of its own; None without.
    features: all other tables of rows, None for models without any. User and context: one bag a
        request. Attributes of items and behaviours, features of impressions: one bag for each
        distinct row in the batch. The shorter ones end in empty bags.
    raw_ids: ids as they are, for tables without a vocabulary: users, one bag a request, and items,
        one bag a slot; None for models without such tables.
    item_index: (F, S + I) int32, which bag of each item table is the slot's, and, after all slots,
        which is that of each impression's item.
    candidates: (I,) int32, slot of each impression's item. request: (I,) int32, its request.
    candidate_offsets: (R + 1,) int64, where each request's impressions begin. A batch that is
        only there to keep a rank in step has none.
    behaviours: (T,) int32, slot of each behaviour, oldest first.
    behaviour_offsets: (R + 1,) int64, where each request's behaviours begin.
    behaviour_attributes: (A, T) int32, bag of each behaviour attribute.
    most_candidates, most_behaviours: lengths of the longest lists, known without asking a device.
    vectors: (S, D) int8 (value / 127) or float32, zeros without a vector; None where none are used.
    vector_mask: (S,) bool, True where the slot's item has a vector; None without vectors.
    search: what the general search found; None for methods that do not search.
    made: (I, M + hidden + 1) float32, what a frozen MAKE says of each impression, zeros for an
        item without a vector: interest, hidden layers, logit; None without MAKE.
    labels: (I,) float32 in {0, 1}.
    loss_weight: () float32: the sum of this rank's losses times this, averaged over ranks, is
        the mean loss per impression of the global batch, weighted where there are weights.
    rows: (R,) int64, which requests of the data set these are.
    impression_index: (Q, I) int32, bag of each feature of impressions; None without any.
    request_numbers: (R, 2 P) float32 of users and contexts: values, 0 for null, and after them the
        flags, 1 for null and else 0; None without numeric features.
    target_numbers: (I, 2 G) float32 of each impression and its item, likewise.
    weights: (I,) float32, of each impression in the loss; None: all alike.
    bags: multi-hot features, None without any. Of users and contexts one bag a request, of items
        one a slot, after the other item tables in ``item_index``. Shorter ones end in empty bags.
    sequences: the further behaviour sequences that the model looks at, in its order.
    target_vectors: (I, D) as ``vectors``, of each impression's item; None where none are used.
    folds: where its folds lie; None where its requests are in no order of folds.
    """

    item_ids: KeyedJaggedTensor | None
    features: KeyedJaggedTensor | None
    raw_ids: KeyedJaggedTensor | None
    item_index: Tensor
    candidates: Tensor
    request: Tensor
    candidate_offsets: Tensor
    behaviours: Tensor
    behaviour_offsets: Tensor
    behaviour_attributes: Tensor
    most_candidates: int
    most_behaviours: int
    vectors: Tensor | None
    vector_mask: Tensor | None
    search: SearchResults | None
    made: Tensor | None
    labels: Tensor
    loss_weight: Tensor
    rows: Tensor
    impression_index: Tensor | None = None
    request_numbers: Tensor | None = None
    target_numbers: Tensor | None = None
    weights: Tensor | None = None
    bags: KeyedJaggedTensor | None = None
    sequences: tuple[FurtherBehaviours, ...] = ()
    target_vectors: Tensor | None = None
    folds: FoldEnds | None = None

    def pin_memory(self) -> "RequestBatch":
        """For a GPU, in memory that it copies from; what ranks pool for each other is rounded."""
        pooled = {"raw_ids": self.raw_ids, "bags": self.bags}
        wide = {name: rounded(bags) for name, bags in pooled.items() if bags is not None}
        return super(RequestBatch, replace(self, **wide)).pin_memory()

    @property
    def lists(self) -> RequestLists:
        """Whose the impressions and behaviours are."""
        return RequestLists(
            self.candidate_offsets,
            self.behaviour_offsets,
            self.most_candidates,
            self.most_behaviours,
        )

    def lists_of(self, further: FurtherBehaviours) -> RequestLists:
        """Whose the impressions and the behaviours of a further sequence are."""
        offsets = (self.candidate_offsets, further.offsets)
        return RequestLists(*offsets, self.most_candidates, further.most)
