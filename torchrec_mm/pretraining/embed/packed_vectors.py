"""Vectors of packed items: what pre-training kept of frozen backbones is not computed again.

Shape letters: n items of a part, m of them with a vector, D item-vector width.
"""

from pathlib import Path

import numpy as np
import torch

from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.item_vectors.writer import as_stored
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.fingerprint import origin_of
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.pairs.side_reader import SideReader

PART_ITEMS = 4096  # the most that a rank embeds again after an interruption


class PackedItems:
    """The items of packed content in parts of consecutive rows: ``Items`` of a run."""

    def __init__(self, packed: PackedContent) -> None:
        self.num_items, self.fingerprint = packed.num_items, packed.fingerprint
        starts = range(0, self.num_items, PART_ITEMS)
        self.parts = [range(start, min(start + PART_ITEMS, self.num_items)) for start in starts]


class PackedVectors:
    """Vectors of one space of an encoder, of what a reader reads: a ``VectorMaker``."""

    def __init__(
        self,
        items: PackedItems,
        reader: SideReader,
        encoder: ItemEncoder,
        *,
        name: str,
        space: str,
        dtype: str,
        batch_size: int,
        precision: Precision,
        worker: Worker,
    ) -> None:
        """Hold what a part needs.

        Args:
            items: of the reader's packed content.
            reader: of the encoder's modalities.
            encoder: on the worker's device, its heads trained or fitted.
            name: of the encoder.
            space: of its vectors, "image", "text" or "fused".
            dtype: "int8" or "float32".
            batch_size: items encoded at once.
            precision: of the encoder.
            worker: this rank.
        """
        self.items, self.reader, self.encoder = items, reader, encoder.eval()
        self.encoder_name, self.modality, self.dtype = name, space, dtype
        self.width = encoder.widths[space]
        self.batch_size, self.precision, self.worker = batch_size, precision, worker

    def prepare(self, folder: Path) -> None:
        """Nothing is needed."""

    def origin(self) -> str:
        """Name of the encoder, space, and fingerprint of weights and preprocessing."""
        return origin_of(self.encoder_name, self.encoder, self.modality)

    @torch.inference_mode()
    def make(self, part: int) -> dict[str, np.ndarray]:
        """As ``EncoderVectors.make``."""
        rows = np.array(self.items.parts[part])
        vectors = np.zeros((len(rows), self.width), dtype=np.float32)
        has = {modality: np.zeros(len(rows), dtype=bool) for modality in self.reader.sources}
        for batch in self._batches(rows):
            side, _ = self.reader.side(rows[batch])
            with self.precision.autocast():
                encoded = self.encoder(side.to(self.worker.device))[self.modality]
            vectors[batch] = encoded.float().cpu().numpy()
            for modality, mask in side.mask.items():
                has[modality][batch] = mask.numpy()
        packed, any_of = self.reader.packed, np.logical_or.reduce(list(has.values()))
        pictures, corrupt = 0, np.zeros(len(rows), dtype=bool)
        if "image" in has:
            present = packed.by_modality["image"].present[rows]
            pictures, corrupt = int(present.sum()), present & ~has["image"]
        item_ids = packed.item_ids[rows]
        return {
            "item_ids": item_ids[any_of],
            "vectors": as_stored(vectors[any_of], item_ids[any_of], self.dtype),
            "pictures": np.array([pictures]),
            "corrupt": item_ids[corrupt],
        }

    def _batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """Places of a part's rows, texts of alike length together: less padding."""
        order = np.arange(len(rows))
        if "text" in self.reader.sources:
            lengths = self.reader.packed.by_modality["text"].lengths[rows]
            order = np.argsort(lengths, kind="stable")
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
