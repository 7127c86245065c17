"""Items to item vectors, part by part; what a part holds depends on its number alone.

Shape letters: n items of a part, m of them with a vector, D item-vector width.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from torchrec_mm.data.item_stream import ItemRows, ItemStream
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.writer import as_stored
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.head_sample import HeadSample
from torchrec_mm.pretraining.item_encoder import ItemEncoder
from torchrec_mm.pretraining.item_sides import ItemSide, SideLoader
from torchrec_mm.pretraining.parts import encode_parts, read_part
from torchrec_mm.pretraining.precision import Precision


class ItemEmbedder:
    """An encoder and the items that it embeds."""

    def __init__(
        self,
        stream: ItemStream,
        encoder: ItemEncoder,
        loader: SideLoader,
        precision: Precision,
        worker: Worker,
    ) -> None:
        """``encoder``: of the stream's modalities, on the worker's device."""
        self.stream, self.encoder, self.loader = stream, encoder.eval(), loader
        self.precision, self.worker = precision, worker
        self._sample: HeadSample | None = None

    def fit_heads(self, folder: Path) -> None:
        """Fit heads that nobody trained to a sample of the items; all ranks call it.

        Args:
            folder: where the sample's features are kept, in parts: none is computed again.

        Raises:
            InputError: no item of the sample has one of the modalities.
        """
        self._sample = HeadSample(
            folder, self.stream, self.encoder, self.loader, self.precision, self.worker
        )
        self._sample.fit_heads()

    @torch.inference_mode()
    def embed(self, number: int, space: str, dtype: str) -> dict[str, np.ndarray]:
        """The vectors of one part.

        Args:
            number: of the part.
            space: of the encoder, "image", "text" or "fused".
            dtype: "int8" or "float32".

        Returns:
            "item_ids" (m,) int64, "vectors" (m, D) as stored; "pictures" (1,) int64, how many the
            part has, and "corrupt" int64, ids of the items whose picture could not be decoded.
        """
        items = self.stream.read(self.stream.parts[number])
        vectors = np.zeros((len(items), self.encoder.widths[space]), dtype=np.float32)
        has, corrupt = np.zeros((2, len(items)), dtype=bool)
        with tqdm(total=len(items), **self._bar) as progress:
            for batch in self._batches(number, items):
                with self.precision.autocast(self.worker.device):
                    encoded = self.encoder(batch.side)[space]
                vectors[batch.rows] = encoded.float().cpu().numpy()
                has[batch.rows] = torch.stack(list(batch.side.mask.values())).any(0).cpu().numpy()
                corrupt[batch.corrupt] = True
                progress.update(len(batch.rows))
        item_ids = items.item_ids[has]
        return {
            "item_ids": item_ids,
            "vectors": as_stored(vectors[has], item_ids, dtype),
            "pictures": np.array([count_of(items, "image")]),
            "corrupt": items.item_ids[corrupt],
        }

    def _batches(self, number: int, items: ItemRows) -> Iterator[ItemSide]:
        """Every row of a part once; those of the sample as the features that are there already."""
        rows = np.arange(len(items))
        if self._sample is None:
            return self.loader.batches(items, rows)
        sampled = self._sample.rows(number)
        rest = self.loader.batches(items, np.delete(rows, sampled))
        return chain([self._sample.side(number)] if len(sampled) else [], rest)

    @property
    def _bar(self):
        hidden = None if self.worker.is_first else True
        return {"unit": "item", "desc": "this part", "leave": False, "disable": hidden}
