"""A batch of pairs, as encoders and losses read it.

Shape letters: B pairs of this rank, H hard-negative slots, R rows of a side, n inputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What an encoder reads: pictures (n, 3, H, W) uint8, tokens of n texts by name, or the cached
# features of either, (n, F) float.
Inputs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class Side:
    """Queries, keys or hard negatives: R rows that may have a picture, a text, or both.

    num_rows: R. inputs: n of each modality; there is at least one, if need be a filler, so that no
    rank ever skips an encoder. rows: (n,) int64 in [0, R] by modality, the row an input belongs to,
    R for a filler; each row at most once. mask: (R,) bool by modality, True where the row has it.
    ids: (R,) int64 by space ("image", "text", "fused"), equal where the content is equal, -1 where
    it is missing.
    """

    num_rows: int
    inputs: Mapping[str, Inputs]
    rows: dict[str, Tensor]
    mask: dict[str, Tensor]
    ids: dict[str, Tensor]

    def present(self, space: str) -> Tensor:
        """(R,) bool, True where the row has a vector in the space; fused: any modality will do."""
        if space in self.mask:
            return self.mask[space]
        return torch.stack(list(self.mask.values())).any(dim=0)

    def to(self, device: torch.device) -> "Side":
        """The same on another device; not waited for where the memory is pinned."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Side":
        """The same in memory that a GPU copies from by itself."""
        return _mapped(self, Tensor.pin_memory)


def side_of(
    num_rows: int,
    inputs: Mapping[str, Inputs],
    places: dict[str, np.ndarray],
    ids: dict[str, Tensor] | None = None,
) -> Side:
    """A Side, given which row each input belongs to.

    Args:
        num_rows: R.
        inputs: n of each modality; a filler where no row has it.
        places: (n,) int64 in [0, R] by modality, R for an input without a row; empty for fillers.
        ids: as of ``Side``; None where nothing is trained.
    """
    rows, mask = {}, {}
    for modality, at in places.items():
        rows[modality] = torch.from_numpy(at if len(at) else np.array([num_rows]))
        has_input = torch.zeros(num_rows + 1, dtype=torch.bool)
        has_input[rows[modality]] = True
        mask[modality] = has_input[:-1]  # without the row of the fillers
    return Side(num_rows, inputs, rows, mask, ids or {})


@dataclass(frozen=True)
class PairBatch:
    """B queries, what each should find, and what it should not.

    query, key: sides of B rows. hard: a side of B * H rows, those of one query in a run; H may be
    0. num_hard: H. relevant: by space (R, 2) int64, a row of the B and the id of a content that was
    bought by an equal query; without a space nothing is known. pictures: how many were read.
    corrupt: those of them that are left out, because they could not be decoded.
    """

    query: Side
    key: Side
    hard: Side
    _: KW_ONLY
    num_hard: int
    relevant: dict[str, Tensor] = field(default_factory=dict)
    pictures: int = 0
    corrupt: int = 0

    def to(self, device: torch.device) -> "PairBatch":
        """The same on another device; not waited for where the memory is pinned."""
        return _mapped(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "PairBatch":
        """The same in memory that a GPU copies from by itself; DataLoader calls it."""
        return _mapped(self, Tensor.pin_memory)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """``value`` with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(each, change) for name, each in value.items()}
    if isinstance(value, Side | PairBatch):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        return type(value)(**{name: _mapped(part, change) for name, part in parts.items()})
    return value
