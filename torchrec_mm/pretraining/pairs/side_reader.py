"""Rows of the packed content to a Side: pictures decoded, texts tokenised, or cached features.

Runs in the loader's processes, and knows no encoder. Shape letters: R rows of a side, n inputs of
one modality, C distinct contents, F feature width.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from torchrec_mm.data.content.images import MAX_IMAGE_PIXELS, decode_images
from torchrec_mm.data.content.packed import Contents, PackedContent
from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.side import Inputs, Side, side_of
from torchrec_mm.pretraining.encoder.tokeniser import Tokeniser
from torchrec_mm.pretraining.pairs.features import Features


class Source(Protocol):
    """Where the inputs of one modality come from."""

    def load(self, rows: np.ndarray, seeds: np.ndarray | None) -> tuple[Inputs, np.ndarray]:
        """Inputs of the encoder.

        Args:
            rows: (n,) int64 rows of the packed content that have the modality.
            seeds: (n,) int64, of the augmentation of each; None for none.

        Returns:
            n inputs, and ok (n,) bool, False where a picture could not be decoded.
        """

    def filler(self) -> Inputs:
        """One input of no meaning."""


class Content(Source, Protocol):
    """Where what a backbone reads comes from."""

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """(n,) numbers: inputs of alike ones waste least of a batch. rows: as of ``load``."""


@dataclass(frozen=True)
class PictureSource:
    """Pictures, decoded when they are asked for. size: height and width in pixels."""

    contents: Contents
    size: int
    max_pixels: int = field(default=MAX_IMAGE_PIXELS, kw_only=True)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """See ``Content``: pictures are all of one size."""
        return np.zeros(len(rows))

    def load(self, rows: np.ndarray, seeds: np.ndarray | None) -> tuple[Inputs, np.ndarray]:
        """See ``Source``; (n, 3, size, size) uint8."""
        raw = self.contents.pictures(rows)
        return decode_images(raw, self.size, max_pixels=self.max_pixels, seeds=seeds)

    def filler(self) -> Inputs:
        return torch.zeros(1, 3, self.size, self.size, dtype=torch.uint8)


@dataclass(frozen=True)
class TextSource:
    """Texts, as tokens; they are never augmented."""

    contents: Contents
    tokenise: Tokeniser

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """See ``Content``: tokens of each; where a tokeniser marks none, bytes."""
        mask = self.tokenise(self.contents.texts(rows)).get("attention_mask")
        return self.contents.lengths[rows] if mask is None else mask.sum(dim=1).numpy()

    def load(self, rows: np.ndarray, seeds: np.ndarray | None) -> tuple[Inputs, np.ndarray]:
        """See ``Source``."""
        return self.tokenise(self.contents.texts(rows)), np.ones(len(rows), dtype=bool)

    def filler(self) -> Inputs:
        return self.tokenise(["x"])


@dataclass(frozen=True)
class FeatureSource:
    """What a frozen backbone made of pictures or texts, computed before."""

    features: Features

    def load(self, rows: np.ndarray, seeds: np.ndarray | None) -> tuple[Inputs, np.ndarray]:
        """See ``Source``; (n, F) float32, zeros where a picture could not be decoded."""
        return self.features.of(rows)

    def filler(self) -> Inputs:
        return torch.zeros(1, self.features.width)


@dataclass(frozen=True)
class SideReader:
    """Makes sides of the packed content; sent to the loader's processes.

    packed: the contents. sources: by modality.
    """

    packed: PackedContent
    sources: dict[str, Source]
    _fused_ids: np.ndarray | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        fused_ids = self.packed.fused_ids() if len(self.sources) > 1 else None
        object.__setattr__(self, "_fused_ids", fused_ids)

    @property
    def spaces(self) -> tuple[str, ...]:
        """Whose ids sides have."""
        return (*self.sources, "fused") if len(self.sources) > 1 else tuple(self.sources)

    def content_ids(self, space: str, rows: np.ndarray) -> np.ndarray:
        """(n,) int64 as in ``Side.ids`` of a space, of (n,) rows of the packed content."""
        if space in self.sources:
            return self.packed.by_modality[space].content[rows]
        assert self._fused_ids is not None  # the only other space there is
        return self._fused_ids[rows]

    def side(self, rows: np.ndarray, seeds: np.ndarray | None = None) -> tuple[Side, np.ndarray]:
        """Read one side.

        Args:
            rows: (R,) int64 rows of the packed content, -1 for nothing.
            seeds: (R,) int64, to augment each picture by; None leaves them as they are.

        Returns:
            the side, and counts (2,) int64: pictures decoded just now, and those of them that could
            not be. What cannot be decoded, now or when its features were computed, is missing.
        """
        inputs, places, ids = {}, {}, {}
        counts = np.zeros(2, dtype=np.int64)
        for modality, source in self.sources.items():
            contents = self.packed.by_modality[modality]
            at = np.flatnonzero((rows >= 0) & contents.present[rows])
            if len(at):
                inputs[modality], ok = source.load(rows[at], None if seeds is None else seeds[at])
            else:
                inputs[modality], ok = source.filler(), np.empty(0, dtype=bool)
            if isinstance(source, PictureSource):
                counts += len(ok), (~ok).sum()
            places[modality] = np.where(ok, at, len(rows))
            content = np.full(len(rows), -1)
            content[at[ok]] = contents.content[rows[at[ok]]]
            ids[modality] = torch.from_numpy(content)
        if self._fused_ids is not None:
            has_any = np.logical_or.reduce([content >= 0 for content in ids.values()])
            ids["fused"] = torch.from_numpy(np.where(has_any, self._fused_ids[rows], -1))
        return side_of(len(rows), inputs, places, ids), counts


ALLOWED_IN_ANY_RUN = 1  # of few pictures, one alone would exceed any small share


def check_corrupt(*, corrupt: int, pictures: int, share: float) -> None:
    """Refuse data of which more pictures than allowed cannot be decoded.

    Args:
        corrupt: pictures that could not be decoded, of ``pictures`` that were tried.
        share: of the pictures, in [0, 1]; one alone is let pass if it is above 0.

    Raises:
        InputError: they are more.
    """
    if corrupt > max(share * pictures, ALLOWED_IN_ANY_RUN if share else 0):
        rule = f"corrupt_share must be at least {corrupt / pictures:.4f} for these pictures"
        raise InputError(f"{rule}, {corrupt} of {pictures} could not be decoded, got {share}")
