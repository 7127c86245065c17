"""Each user's own effects: a linear model beside the network, which scores but does not learn.

Shape letters: R requests, I impressions, D item-vector width, W width of the table.
"""

from collections.abc import Container, Mapping
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from torchrec_mm.data.stream.batches import USER_ID, RequestBatch
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.nn.effects import principal_directions
from torchrec_mm.ranking.make import unit_vectors

EFFECTS = "user_effects"
LEAST_WIDTH = 4  # of a table that GPUs take
SAMPLE = 1 << 15  # vectors that directions are found from


class UserEffects(nn.Module):
    """What effects are of: 1, for how often a user clicks, and directions of item vectors.

    mean: (D,). directions: (D, W - 1). Both are frozen before training, of the item vectors alone.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, vector_width: int, width: int) -> None:
        """``vector_width``: D, 0 for methods without vectors. ``width``: W."""
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(vector_width))
        self.register_buffer("directions", torch.zeros(vector_width, width - 1))

    def find_directions(self, vectors: ItemVectors) -> None:
        """Of at most SAMPLE vectors, evenly over all."""
        step = max(1, -(-len(vectors) // SAMPLE))
        sample = unit_vectors(torch.from_numpy(np.array(vectors.values[::step])))
        mean, directions = principal_directions(sample, self.width - 1)
        self.mean.copy_(mean)
        self.directions.copy_(directions)

    def columns(self, batch: RequestBatch) -> Tensor:
        """(I, W) of each impression; of an item without a vector all but the first are 0."""
        first = torch.ones(batch.candidates.shape[0], 1, device=batch.candidates.device)
        vectors = batch.target_vectors
        if vectors is None:
            return F.pad(first, (0, self.width - 1))
        unit = unit_vectors(vectors)
        known = unit.ne(0).any(1, keepdim=True)
        return torch.cat([first, ((unit - self.mean) @ self.directions) * known], dim=1)

    def logit(self, batch: RequestBatch, effects: KeyedTensor) -> Tensor:
        """(I,) what they add. ``effects``: of ``users_of`` the same batch; no step changes them."""
        of_impressions = F.embedding(batch.request, effects.values().detach())
        return (of_impressions * self.columns(batch)).sum(1)


class Tables(Protocol):
    """What is asked of ``TableSizes``."""

    @property
    def all(self) -> Mapping[str, int]: ...
    @property
    def request(self) -> Mapping[str, int]: ...


def effects_width(
    asked: int, tables: Tables, taken: Container[str], vectors: ItemVectors | None
) -> int:
    """Of the table of effects; 0 without a table whose rows are one user's each.

    Args:
        asked: for methods with vectors; without there is only how often users click.
        tables: of features. taken: those whose rows are other things' too, or change owners.
        vectors: that batches hold.
    """
    if USER_ID not in tables.request or USER_ID in taken or EFFECTS in tables.all:
        return 0
    return asked if vectors else min(asked, LEAST_WIDTH)


def users_of(batch: RequestBatch) -> KeyedJaggedTensor:
    """Each request's row of the table of effects, as the batch has it for that of users."""
    assert batch.features is not None  # a ranker with effects has a table of users
    users = batch.features[USER_ID]
    lengths = cast(Tensor, users.lengths())
    stride = len(lengths)
    return KeyedJaggedTensor([EFFECTS], users.values(), lengths=lengths, stride=stride)
