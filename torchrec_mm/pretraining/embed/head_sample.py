"""The sample of items that untrained heads are fitted to: its features, computed once.

Shape letters: N items of all files, n items of a part, k sampled ones with a modality, F features.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from torchrec_mm.data.content.item_stream import ItemStream
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker, copy_from_first_rank
from torchrec_mm.pretraining.embed.item_batches import BatchLoader, ItemBatch
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.encoder.side import side_of
from torchrec_mm.runs.resumable_parts import encode_parts, read_part

SAMPLE_ITEMS = 20_000


@dataclass(frozen=True)
class ItemEncoding:
    """How the items of a stream are encoded on this rank; ``encoder``: of their modalities."""

    stream: ItemStream
    encoder: ItemEncoder
    loader: BatchLoader
    precision: Precision
    worker: Worker


class HeadSample:
    """Features of at most ``SAMPLE_ITEMS`` items, evenly spaced, in a folder of parts."""

    def __init__(self, folder: Path, encoding: ItemEncoding) -> None:
        """Compute the features that the folder lacks; all ranks call it."""
        self.folder, self.encoding, self.stream = folder, encoding, encoding.stream
        self.encoders = encoding.encoder.encoders
        label = "features of a sample"
        encode_parts(self._features, len(self.stream.parts), folder, encoding.worker, label)

    def fit_heads(self) -> None:
        """Fit heads that have no room for all features to the sample's principal components.

        Collective.

        Raises:
            InputError: no item has a modality.
        """
        for modality, encoder in self.encoders.items():
            name = f"{modality}.features"
            numbers = range(len(self.stream.parts))
            parts = [read_part(self.folder, number, name)[name] for number in numbers]
            features = torch.from_numpy(np.concatenate(parts)).to(self.encoding.worker.device)
            if not len(features):
                rule = f"{self.stream.folder} must hold an {modality} that can be read"
                raise InputError(f"{rule}, got none")
            if not encoder.head.keeps_all:
                encoder.head.fit_principal_components(features)
                copy_from_first_rank(encoder.head.projection.parameters())

    def rows(self, part: int) -> np.ndarray:
        """Rows of a part that are in the sample: int64, ascending."""
        total, span = self.stream.num_items, self.stream.parts[part]
        sample = np.linspace(0, total - 1, min(total, SAMPLE_ITEMS)).astype(np.int64)
        first, stop = np.searchsorted(sample, [span.first, span.first + len(span)])
        return sample[first:stop] - span.first

    def batch(self, part: int) -> ItemBatch:
        """Those rows as a batch of features."""
        rows, found = self.rows(part), read_part(self.folder, part)
        places, inputs = {}, {}
        for modality in self.encoders:
            features = torch.from_numpy(found[f"{modality}.features"])
            filler = features.new_zeros(1, features.shape[1])
            inputs[modality] = features if len(features) else filler
            places[modality] = np.searchsorted(rows, found[f"{modality}.rows"])
        side = side_of(len(rows), inputs, places).to(self.encoding.worker.device)
        return ItemBatch(rows, side, found["corrupt"])

    @torch.inference_mode()
    def _features(self, part: int) -> dict[str, np.ndarray]:
        """Of a part: "MODALITY.rows" (k,), "MODALITY.features" (k, F); and "corrupt" rows (c,)."""
        items, rows = self.stream.read(self.stream.parts[part]), self.rows(part)
        found: dict[str, list[np.ndarray]] = {"corrupt": [rows[:0]]}
        for modality, encoder in self.encoders.items():
            found[f"{modality}.rows"] = [rows[:0]]
            width = encoder.head.projection.in_features
            found[f"{modality}.features"] = [np.zeros((0, width), dtype=np.float32)]
        for batch in self.encoding.loader.batches(items, rows):
            found["corrupt"].append(batch.corrupt)
            for modality, encoder in self.encoders.items():
                with self.encoding.precision.autocast():
                    features = encoder.backbone(batch.side.inputs[modality])
                at = batch.side.rows[modality].cpu().numpy()
                real = at < len(batch.rows)
                found[f"{modality}.rows"].append(batch.rows[at[real]])
                found[f"{modality}.features"].append(features.float().cpu().numpy()[real])
        return {name: np.concatenate(arrays) for name, arrays in found.items()}
