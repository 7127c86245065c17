"""Figures of a run for TensorBoard."""

from math import isfinite
from typing import TYPE_CHECKING

from torchrec_mm.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter  # slow to import


class Scalars:
    """tensorboard/ of a run folder. A context; only the first rank writes."""

    def __init__(self, run: RunFolder, start: int) -> None:
        """Wait to be entered; ``start`` steps are done already, what follows them is forgotten."""
        self.run, self.start = run, start
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> "Scalars":
        if self.run.worker.is_first:
            from torch.utils.tensorboard import SummaryWriter

            purged = self.start + 1 if self.start else None
            self._writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=purged)
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Put in those that are numbers."""
        for name, value in figures.items():
            if self._writer is not None and isfinite(value):
                self._writer.add_scalar(name, value, step)
