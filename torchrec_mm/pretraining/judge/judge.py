"""Judges an encoder on held-out searches, and writes it and its figures for others."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from torchrec_mm.documents import read_json
from torchrec_mm.files import write_json
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.encoder_files import (
    OFF_THE_SHELF,
    frozen_fingerprints,
    save_encoder,
)
from torchrec_mm.pretraining.encoder.item_encoder import FUSED, ItemEncoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.judge.encoding import SpaceVectors, encode_rows
from torchrec_mm.pretraining.judge.evaluation import (
    main_mrr,
    main_space,
    retrieval_report,
    title_to_picture,
)
from torchrec_mm.pretraining.pairs.side_reader import SideReader
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import RunFolder

BATCH_SIZE = 64


@dataclass(frozen=True)
class Encoded:
    """What is judged: vectors of all items and of the held-out searches' queries."""

    items: SpaceVectors
    queries: SpaceVectors


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

    def encode(self, encoder: ItemEncoder) -> Encoded:
        """Items and queries by the encoder as it is now. Collective."""
        items = self.reader.packed.num_items
        return Encoded(
            self._encode(encoder, np.arange(items), "items"),
            self._encode(encoder, items + self.searches, "queries"),
        )

    def mrr(self, encoded: Encoded) -> float | None:
        """What ``report`` calls so, alone. Collective."""
        space, rows = main_space(encoded.items.values), self.reader.packed.purchased
        return main_mrr(
            encoded.items.values[space],
            encoded.items.mask[space],
            encoded.queries.values[space],
            encoded.queries.mask[space],
            rows[self.searches],
            self.worker,
        )

    def report(self, encoded: Encoded) -> dict[str, Any]:
        """What retrieval.json says. Collective."""
        packed, items, queries = self.reader.packed, encoded.items, encoded.queries
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
        if self.among is not None and FUSED in items.values:
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


RETRIEVAL_FILE = "retrieval.json"


class Results:
    """Judges the encoder after each epoch, and writes the best so far; the first rank alone writes.

    Which one is best says the MRR of the held-out searches. The momentum encoder is a candidate
    too: a running mean of the weights often generalises better than the last ones (Izmailov et
    al., UAI 2018, arXiv:1803.05407). report: what retrieval.json holds, the figures of the encoder
    in encoder.safetensors.
    """

    def __init__(
        self,
        run: RunFolder,
        encoder: ItemEncoder,
        judge: Judge,
        name: str,
        momentum_encoder: ItemEncoder | None = None,
    ) -> None:
        """Nothing is judged yet.

        Args:
            run: where to write. encoder: that is trained. judge: of both encoders.
            name: of the encoder once it is trained, as the table of encoders calls it.
            momentum_encoder: the slow copy of the encoder, to be judged too, by its MRR unless it
                is the better one; None: it is not.
        """
        self.run, self.encoder, self.judge, self.name = run, encoder, judge, name
        self.momentum_encoder = momentum_encoder
        self.report: dict[str, Any] = {}
        self._frozen: dict[str, str] | None = None

    def begin(self, start: Position) -> None:
        """Judge the off-the-shelf encoder, or find what was said of it. Collective."""
        if start.step:
            # Runs of 0.1.0 wrote the encoder of the last epoch, and not which that was.
            self.report = {"epoch": start.epoch} | read_json(self.run.path / RETRIEVAL_FILE)
            return
        untrained = self._report(self.encoder)
        parts = self.encoder.encoders.values()
        whole = untrained  # heads without room for all features have lost some already
        if not all(part.head.keeps_all for part in parts):
            whole = self._report(self.encoder.with_all_features())
        self._write(OFF_THE_SHELF, 0, untrained, whole)
        self.run.log(epoch=0, **_figures(untrained))

    def after_epoch(self, epoch: int) -> float | None:
        """Judge after ``epoch`` epochs, and write if none was better; the MRR. Collective."""
        after, weights = self._report(self.encoder), self.encoder
        figures = _figures(after)
        if self.momentum_encoder is not None:
            slow = self.judge.encode(self.momentum_encoder)
            figures["momentum_mrr"] = mrr = self.judge.mrr(slow)
            if (mrr or 0) > (after["mrr"] or 0):
                after, weights = self.judge.report(slow), self.momentum_encoder
        self.run.log(epoch=epoch, **figures)
        if self._is_best(epoch, after["mrr"]):
            self._write(self.name, epoch, after, self.report[OFF_THE_SHELF], weights)
        return after["mrr"]

    def warn_if_below(self) -> None:
        """Say so if the best epoch is worse than the encoder that training started from."""
        before, after = self.report[OFF_THE_SHELF]["mrr"], self.report["mrr"]
        if self.run.worker.is_first and before is not None and after is not None and after < before:
            logging.getLogger(__name__).warning(
                "training ended below the off-the-shelf encoder: MRR %.4f, before %.4f on the "
                "same held-out searches; use --epochs 0, or try a smaller --learning_rate, a "
                "greater --width or no bank, --bank_slots 0",
                after,
                before,
            )

    def _report(self, encoder: ItemEncoder) -> dict[str, Any]:
        return self.judge.report(self.judge.encode(encoder))

    def _is_best(self, epoch: int, mrr: float | None) -> bool:
        """Whether to write; an epoch that is done again, after an interruption, may be."""
        best, before = self.report["epoch"], self.report["mrr"]
        return best in (0, epoch) or mrr is None or before is None or mrr > before

    def _write(
        self,
        name: str,
        epoch: int,
        report: dict[str, Any],
        before: dict[str, Any],
        weights: ItemEncoder | None = None,
    ) -> None:
        self.report = {"encoder": name, "epoch": epoch} | report | {OFF_THE_SHELF: before}
        if self.run.worker.is_first:
            if self._frozen is None:  # once a run: no epoch changes it
                self._frozen = frozen_fingerprints(self.encoder)
            save_encoder(self.run.path, name, self.encoder, self._frozen, weights)
            write_json(self.run.path / RETRIEVAL_FILE, self.report)


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the main space, for a line of metrics.jsonl."""
    return {name: value for name, value in report.items() if not isinstance(value, dict)}
