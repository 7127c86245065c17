"""What a run leaves for others: encoder files, and retrieval.json before and after training."""

from typing import Any

from torchrec_mm.documents import read_json
from torchrec_mm.files import write_json
from torchrec_mm.pretraining.encoder.encoder_files import OFF_THE_SHELF, save_encoder
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.judge.judge import Judge
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import RunFolder

RETRIEVAL_FILE = "retrieval.json"


class Results:
    """Judges the encoder after each epoch, and writes it; the first rank alone writes.

    report: what retrieval.json holds.
    """

    def __init__(self, run: RunFolder, encoder: ItemEncoder, judge: Judge, name: str) -> None:
        """``name``: of the encoder once it is trained, as the table of encoders calls it."""
        self.run, self.encoder, self.judge, self.name = run, encoder, judge, name
        self.report: dict[str, Any] = {}

    def begin(self, start: Position) -> None:
        """Judge the off-the-shelf encoder, or find what was said of it. Collective."""
        if start.step:
            self.report = read_json(self.run.path / RETRIEVAL_FILE)
            return
        before = self.judge.report(self.encoder)
        self._write(OFF_THE_SHELF, before, before)
        self.run.log(epoch=0, **_figures(before))

    def after_epoch(self, epoch: int) -> float | None:
        """Judge and write after ``epoch`` epochs; the MRR. Collective."""
        after = self.judge.report(self.encoder)
        self._write(self.name, after, self.report[OFF_THE_SHELF])
        self.run.log(epoch=epoch, **_figures(after))
        return after["mrr"]

    def _write(self, name: str, report: dict[str, Any], before: dict[str, Any]) -> None:
        self.report = {"encoder": name} | report | {OFF_THE_SHELF: before}
        if self.run.worker.is_first:
            save_encoder(self.run.path, name, self.encoder)
            write_json(self.run.path / RETRIEVAL_FILE, self.report)


def _figures(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the main space, for a line of metrics.jsonl."""
    return {name: value for name, value in report.items() if not isinstance(value, dict)}
