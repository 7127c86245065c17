"""What one ranking step sees: R requests, their items looked up once, labels.

Shape letters: R requests, C candidates and L behaviours (the batch's longest lists), S item slots
(the batch's distinct items), A behaviour attributes, D item-vector width.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class RequestBatch(Pipelineable):
    """One batch on one rank, the type TorchRec's pipelines carry.

    request_features: one id a request and table (stride R): user and context; None for models
        without ID tables, as are the other KeyedJaggedTensors.
    item_features: one id a slot and table (stride S): each distinct item of the batch once, with
        its attributes; behaviour attributes fill their own first slots and leave the rest empty.
    candidate_index, behaviour_index: (R, C) and (R, L) int64, slot of each item; 0 in padding.
    behaviour_attribute_index: (A, R, L) int64, slot of each behaviour attribute; 0 in padding.
    candidate_mask, behaviour_mask: (R, C) and (R, L) bool, True where real.
    vectors: (S, D) int8 (value / 127) or float32, zeros without a vector; None without vectors.
    vector_mask: (S,) bool, True where the slot's item has a vector; None without vectors.
    labels: (R, C) float32 in {0, 1}, 0 in padding.
    loss_weight: () float32: the sum of this rank's losses times this, averaged over ranks, is
        the mean loss per impression of the global batch.
    rows: (R,) int64, which requests of the data set these are.
    """

    request_features: KeyedJaggedTensor | None
    item_features: KeyedJaggedTensor | None
    candidate_index: Tensor
    candidate_mask: Tensor
    behaviour_index: Tensor
    behaviour_mask: Tensor
    behaviour_attribute_index: Tensor
    vectors: Tensor | None
    vector_mask: Tensor | None
    labels: Tensor
    loss_weight: Tensor
    rows: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "RequestBatch":
        return self._map(lambda part: part.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> "RequestBatch":
        return self._map(lambda part: part.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        for field in fields(self):
            part = getattr(self, field.name)
            if part is not None:
                part.record_stream(stream)

    def _map(self, change) -> "RequestBatch":
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: None if part is None else change(part) for name, part in parts.items()}
        )
