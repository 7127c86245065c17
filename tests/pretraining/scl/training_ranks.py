"""What each of two ranks does, and one alone: the first steps of whole runs on tiny content."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.pretraining.packed_room import SmallRun, config_of, state_of
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.runs.checkpoint import load_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position

STEPS = 5

# AdamW makes steps of this size of gradients that are rounding alone.
RATES = {"learning_rate": 1e-4, "backbone_learning_rate": 5e-6}

# Everything that could differ from rank to rank, in few runs.
RUNS: dict[str, dict[str, Any]] = {
    "heads": {},
    "layers": {"trainable_layers": -1, "batch_norm": "synchronised"}
    | {"augment": True, "clip_norm": 1.0},
    "clip-e": {"method": "clip-e", "batch_size": 8, "warmup_steps": 3},
}


@dataclass(frozen=True)
class Room:
    """A folder with packed/, and encoders/image and /text."""

    folder: Path

    def run(self, name: str, worker: Worker) -> SmallRun:
        folders = (self.folder / name, self.folder / "packed", self.folder / "encoders")
        config = config_of(*folders, **RATES, **RUNS[name])
        return SmallRun(config, worker)


def first_steps(run: SmallRun) -> dict:
    """Figures and all that a checkpoint holds, after some steps."""
    figures = torch.stack(run.steps(STEPS))
    return {"figures": figures, "state": state_of(run.trainer)}


def on_each_rank(worker: Worker, folder: Path) -> None:
    """Train, save in mid-run, judge."""
    room, results = Room(folder), {}
    for name in RUNS:
        run = room.run(name, worker)
        results[name] = first_steps(run)
        results["judged"] = run.judge.report(run.judge.encode(run.encoder))
        with Checkpointer(folder / f"{name}-checkpoints") as checkpointer:
            checkpointer.save(run.trainer.shards(), Position(step=STEPS, epoch=0))
    torch.save(results, folder / f"{worker.rank}.pt")


def gone_on(run: SmallRun, checkpoint: Path) -> torch.Tensor:
    """Figures of the steps that follow those of a checkpoint."""
    load_checkpoint(checkpoint, run.trainer.shards())
    run.trainer.restored()
    return torch.stack(run.steps(2, first=STEPS))
