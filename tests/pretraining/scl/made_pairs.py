"""Batches of made-up pairs, and a linear encoder that reads them: what SCL needs, in milliseconds.

A content is a number: its features are a row of a table, so that equal ids are equal contents.
"""

import contextlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.pretraining.encoder.side import PairBatch, Side
from torchrec_mm.pretraining.scl.contrast import Contrast
from torchrec_mm.pretraining.scl.settings import LossSettings

CONTENTS, FEATURES = 40, 6
WIDTHS = {"image": 5, "text": 5, "fused": 10}
SETTINGS = LossSettings(momentum=0.9, bank_slots=9, in_batch=True, triplet_weight=2.0, margin=0.2)
ALONE = tuple(Contrast(space, space) for space in WIDTHS)
TABLES = {
    modality: torch.randn(CONTENTS, FEATURES, generator=torch.Generator().manual_seed(seed))
    for seed, modality in enumerate(("image", "text"))
}


class LinearEncoder(nn.Module):
    """One linear layer a modality; fused vectors are both beside each other."""

    spaces = tuple(WIDTHS)
    widths = WIDTHS

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.image = nn.Linear(FEATURES, WIDTHS["image"])
        self.text = nn.Linear(FEATURES, WIDTHS["text"])

    def forward(self, side: Side) -> dict[str, Tensor]:
        vectors = {}
        for modality in ("image", "text"):
            vector = F.normalize(getattr(self, modality)(side.inputs[modality]).float(), dim=1)
            placed = vector.new_zeros(side.num_rows + 1, WIDTHS[modality])
            vectors[modality] = placed.index_copy(0, side.rows[modality], vector)[:-1]
        present = side.mask["image"].float() + side.mask["text"].float()
        both = torch.cat([vectors["image"], vectors["text"]], dim=1)
        return {**vectors, "fused": both / present.clamp(min=1).sqrt()[:, None]}


class Float32:
    """A precision that changes nothing."""

    autocast = staticmethod(contextlib.nullcontext)


@dataclass(frozen=True)
class Contents:
    """(R,) int64 ids in [0, CONTENTS) of pictures and texts, -1 where there is none."""

    image: Tensor
    text: Tensor

    @classmethod
    def draw(cls, rows: int, generator: torch.Generator, present: float = 0.7) -> "Contents":
        ids = torch.randint(CONTENTS, (2, rows), generator=generator)
        there = torch.rand(2, rows, generator=generator) < present
        return cls(*ids.masked_fill(~there, -1))

    def part(self, rows: slice) -> "Contents":
        return Contents(self.image[rows], self.text[rows])

    def side(self) -> Side:
        """Inputs in any order, and one filler of each modality."""
        inputs, places, mask = {}, {}, {}
        for modality in ("image", "text"):
            ids = getattr(self, modality)
            mask[modality] = ids >= 0
            rows = mask[modality].nonzero()[:, 0].flip(0)
            inputs[modality] = torch.cat([TABLES[modality][ids[rows]], torch.ones(1, FEATURES)])
            places[modality] = torch.cat([rows, torch.tensor([len(ids)])])
        fused = (self.image + 1) * 1000 + self.text + 1
        fused = fused.masked_fill(fused == 0, -1)
        ids = {"image": self.image, "text": self.text, "fused": fused}
        return Side(len(self.image), inputs, places, mask, ids)


@dataclass(frozen=True)
class Pairs:
    """Queries, keys, and ``num_hard`` hard negatives of each."""

    query: Contents
    key: Contents
    hard: Contents
    num_hard: int = 2

    @classmethod
    def draw(cls, rows: int, seed: int) -> "Pairs":
        generator = torch.Generator().manual_seed(seed)
        sides = (Contents.draw(n, generator) for n in (rows, rows, 2 * rows))
        return cls(*sides)

    def batch(self, first: int = 0, last: int | None = None) -> PairBatch:
        """Of some of the pairs, such as one rank's."""
        last = len(self.query.image) if last is None else last
        rows, slots = slice(first, last), slice(self.num_hard * first, self.num_hard * last)
        return PairBatch(
            self.query.part(rows).side(),
            self.key.part(rows).side(),
            self.hard.part(slots).side(),
            num_hard=self.num_hard,
        )
