"""Judges an encoder on held-out searches: all items and the queries encoded, then ranked."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.judge.encoding import SpaceVectors, encode_rows
from torchrec_mm.pretraining.judge.evaluation import retrieval_report, title_to_picture
from torchrec_mm.pretraining.pairs.side_reader import SideReader

BATCH_SIZE = 64


@dataclass(frozen=True)
class Judge:
    """What encoders of a run are judged on; equal on every rank.

    reader: of the content. searches: (Q,) int64, the held-out ones. among: (N,) bool, the items
    whose titles should find their pictures, or None not to ask. num_workers: of the reading.
    """

    reader: SideReader
    searches: np.ndarray
    among: np.ndarray | None
    worker: Worker
    precision: Precision
    num_workers: int

    def report(self, encoder: ItemEncoder) -> dict[str, Any]:
        """What retrieval.json says of the encoder as it is now. Collective."""
        packed = self.reader.packed
        items = self._encode(encoder, np.arange(packed.num_items), "items")
        queries = self._encode(encoder, packed.num_items + self.searches, "queries")
        report = retrieval_report(
            items.values,
            items.mask,
            queries.values,
            queries.mask,
            packed.purchased[self.searches],
            packed.hard[self.searches],
            packed.attributes,
            self.worker,
        )
        if self.among is not None and "fused" in encoder.spaces:
            report["title_to_picture"] = title_to_picture(
                items.values["text"],
                items.values["image"],
                items.mask["text"],
                items.mask["image"],
                self.among,
                packed.by_modality["text"].of_items,
                self.worker,
            )
        return report

    def _encode(self, encoder: ItemEncoder, rows: np.ndarray, what: str) -> SpaceVectors:
        return encode_rows(
            encoder,
            self.reader,
            rows,
            self.worker,
            self.precision,
            batch_size=BATCH_SIZE,
            num_workers=self.num_workers,
            label=f"judge: {what}",
        )


def evenly_spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of the rows, in order, from the first to the last."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]
