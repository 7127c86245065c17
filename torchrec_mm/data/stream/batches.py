"""What one ranking step sees: R requests, their items looked up once, labels.

Shape letters: R requests, C candidates and L behaviours (the batch's longest lists), I impressions
(all real candidates, request after request), S item slots (the batch's distinct items), K kept
behaviours, N tiers, F item tables, A behaviour attributes, D item-vector width.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

ITEM_ID, USER_ID = "item_id", "user_id"
RAW_IDS = (USER_ID, ITEM_ID)  # the features whose ids an encoded data set keeps

PartsT = TypeVar("PartsT", bound="BatchParts")


class BatchParts(Pipelineable):
    """A dataclass of tensors, jagged tensors and further parts that move together."""

    def to(self: PartsT, device: torch.device, non_blocking: bool = False) -> PartsT:
        return self._map(lambda part: part.to(device=device, non_blocking=non_blocking))

    def pin_memory(self: PartsT) -> PartsT:
        return self._map(lambda part: part.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        for field in fields(self):
            part = getattr(self, field.name)
            if part is not None:
                part.record_stream(stream)

    def _map(self: PartsT, change: Callable[[Any], Any]) -> PartsT:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: None if part is None else change(part) for name, part in parts.items()}
        )


@dataclass
class SearchResults(BatchParts):
    """``search.SearchHits`` as tensors of a batch, by item slot.

    request: (I,) int32, request of each impression within the batch. position: (I,) int64, where
    the impression lies in the flattened (R, C) matrices.
    kept_index: (I, K) int32 slot of each kept behaviour, alike or better first; padding holds any
    slot. kept_length: (I,) int32, how many are real. kept_cosine: (I, K) float32.
    tiers: (I, N) float32, behaviours per tier of cosine, over all behaviours of the request.
    """

    request: Tensor
    position: Tensor
    kept_index: Tensor
    kept_length: Tensor
    kept_cosine: Tensor
    tiers: Tensor


@dataclass
class RequestBatch(BatchParts):
    """One batch on one rank, the type TorchRec's pipelines carry.

    item_ids: the distinct rows of the table of item ids, each in a bag of its own; None without.
    features: all other tables of rows, None for models without any. User and context: one bag a
        request. Item attributes and behaviour attributes: one bag for each distinct row in the
        batch. The shorter ones end in empty bags.
    raw_ids: ids as they are, for tables without a vocabulary: users, one bag a request, and items,
        one bag a slot; None for models without such tables.
    item_index: (F, S) int32, which bag of each item table is the slot's.
    candidate_index, behaviour_index: (R, C) and (R, L) int64, slot of each item; 0 in padding.
    behaviour_attribute_index: (A, R, L) int64, bag of each behaviour attribute; 0 in padding.
    candidate_mask, behaviour_mask: (R, C) and (R, L) bool, True where real.
    vectors: (S, D) int8 (value / 127) or float32, zeros without a vector; None without vectors.
    vector_mask: (S,) bool, True where the slot's item has a vector; None without vectors.
    search: what the general search found; None for methods that do not search.
    labels: (R, C) float32 in {0, 1}, 0 in padding.
    loss_weight: () float32: the sum of this rank's losses times this, averaged over ranks, is
        the mean loss per impression of the global batch.
    rows: (R,) int64, which requests of the data set these are.
    """

    item_ids: KeyedJaggedTensor | None
    features: KeyedJaggedTensor | None
    raw_ids: KeyedJaggedTensor | None
    item_index: Tensor
    candidate_index: Tensor
    candidate_mask: Tensor
    behaviour_index: Tensor
    behaviour_mask: Tensor
    behaviour_attribute_index: Tensor
    vectors: Tensor | None
    vector_mask: Tensor | None
    search: SearchResults | None
    labels: Tensor
    loss_weight: Tensor
    rows: Tensor
