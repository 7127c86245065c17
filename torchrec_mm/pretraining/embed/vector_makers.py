"""Items to item vectors, part by part; what a part holds depends on its index alone.

Shape letters: n items of a part, m of them with a vector, D item-vector width.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from torchrec_mm.data.content.item_stream import ItemRows, ItemStream
from torchrec_mm.item_vectors.control import random_origin, random_vectors
from torchrec_mm.item_vectors.writer import as_stored
from torchrec_mm.pretraining.embed.head_sample import HeadSample, ItemEncoding
from torchrec_mm.pretraining.embed.item_batches import ItemBatch
from torchrec_mm.pretraining.encoder.fingerprint import origin_of


class EncoderVectors:
    """Vectors of one space of an encoder: a ``VectorMaker``."""

    def __init__(
        self, encoding: ItemEncoding, name: str, space: str, dtype: str, fit_heads: bool
    ) -> None:
        """Move the encoder to its device.

        Args:
            encoding: of the items.
            name: of the encoder.
            space: of its vectors, "image", "text" or "fused".
            dtype: "int8" or "float32".
            fit_heads: nobody trained them; ``prepare`` fits them to a sample of the items.
        """
        self.encoding, self.encoder = encoding, encoding.encoder.to(encoding.worker.device).eval()
        self.encoder_name, self.modality, self.dtype = name, space, dtype
        self.width = self.encoder.widths[space]
        self._fit_heads = fit_heads
        self._sample: HeadSample | None = None

    def prepare(self, folder: Path) -> None:
        """Fit heads, if need be, to a sample kept in ``folder``; InputError if a modality lacks."""
        if self._fit_heads:
            self._sample = HeadSample(folder, self.encoding)
            self._sample.fit_heads()

    def origin(self) -> str:
        """Name of the encoder, space, and fingerprint of weights and preprocessing."""
        return origin_of(self.encoder_name, self.encoder, self.modality)

    @torch.inference_mode()
    def make(self, part: int) -> dict[str, np.ndarray]:
        """The vectors of one part, by its index.

        Returns:
            "item_ids" (m,) int64, "vectors" (m, D) as stored; "pictures" (1,) int64, how many the
            part has, and "corrupt" int64, ids of the items whose picture could not be decoded.
        """
        items = self.encoding.stream.read(self.encoding.stream.parts[part])
        vectors = np.zeros((len(items), self.width), dtype=np.float32)
        has, corrupt = np.zeros((2, len(items)), dtype=bool)
        hidden = None if self.encoding.worker.is_first else True
        with tqdm(total=len(items), desc="part", unit="item", leave=False, disable=hidden) as bar:
            for batch in self._batches(part, items):
                with self.encoding.precision.autocast():
                    encoded = self.encoder(batch.side)[self.modality]
                vectors[batch.rows] = encoded.float().cpu().numpy()
                has[batch.rows] = torch.stack(list(batch.side.mask.values())).any(0).cpu().numpy()
                corrupt[batch.corrupt] = True
                bar.update(len(batch.rows))
        made = _stored(items.item_ids[has], vectors[has], self.dtype)
        pictures = 0 if items.pictures is None else items.present("image").sum()
        return made | {"pictures": np.array([pictures]), "corrupt": items.item_ids[corrupt]}

    def _batches(self, part: int, items: ItemRows) -> Iterator[ItemBatch]:
        """Every row of a part once; those of the sample as the features that are there already."""
        rows = np.arange(len(items))
        if self._sample is None:
            return self.encoding.loader.batches(items, rows)
        sampled = self._sample.rows(part)
        rest = self.encoding.loader.batches(items, np.delete(rows, sampled))
        return chain([self._sample.batch(part)] if len(sampled) else [], rest)


class RandomVectors:
    """The control's vectors, for the items that an encoder could embed: a ``VectorMaker``."""

    encoder_name = "random"

    def __init__(
        self, stream: ItemStream, *, modality: str, dtype: str, width: int, seed: int
    ) -> None:
        self.stream, self.seed = stream, seed
        self.modality, self.dtype, self.width = modality, dtype, width

    def prepare(self, folder: Path) -> None:
        """Nothing is needed."""

    def origin(self) -> str:
        """Items of all catalogues share it: their vectors depend on the id alone."""
        return random_origin(width=self.width, seed=self.seed)

    def make(self, part: int) -> dict[str, np.ndarray]:
        """As ``EncoderVectors.make``; no picture is decoded."""
        items = self.stream.read(self.stream.parts[part])
        has = np.logical_or.reduce([items.present(modality) for modality in self.stream.modalities])
        item_ids = items.item_ids[has]
        made = _stored(
            item_ids, random_vectors(item_ids, width=self.width, seed=self.seed), self.dtype
        )
        return made | {"pictures": np.zeros(1, np.int64), "corrupt": np.empty(0, np.int64)}


def _stored(item_ids: np.ndarray, vectors: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    return {"item_ids": item_ids, "vectors": as_stored(vectors, item_ids, dtype)}
