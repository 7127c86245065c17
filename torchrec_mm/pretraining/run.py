"""A whole pre-training run: judge the off-the-shelf encoders, train each tower, judge again."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.data.searches import Searches
from torchrec_mm.files import new_file, write_json
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder_files import OFF_THE_SHELF, SCL, EncoderSet, save_encoders
from torchrec_mm.pretraining.evaluation import retrieval_report
from torchrec_mm.pretraining.modality import ModalityTask
from torchrec_mm.pretraining.run_folder import (
    CONFIG_FILE,
    RETRIEVAL_FILE,
    Log,
    load_checkpoint,
    save_checkpoint,
)
from torchrec_mm.pretraining.training import TowerTrainer, TrainSettings


class PretrainingRun:
    """Towers that share a run folder; only the first rank writes to it."""

    def __init__(
        self,
        run_dir: Path,
        tasks: dict[str, ModalityTask],
        specs: dict[str, EncoderSpec],
        searches: Searches,
        held_out: np.ndarray,
        settings: TrainSettings,
        worker: Worker,
    ) -> None:
        """All ranks build it with equal arguments; ``held_out`` are rows of ``searches``."""
        self.run_dir, self.tasks, self.specs, self.worker = run_dir, tasks, specs, worker
        self.searches, self.held_out, self.epochs = searches, held_out, settings.epochs
        self.trainers = {m: TowerTrainer(task, settings, worker) for m, task in tasks.items()}

    def run(self, config_yaml: str) -> dict[str, Any]:
        """Train the epochs that are not finished yet.

        Returns:
            What it wrote to retrieval.json.
        """
        checkpoint = load_checkpoint(self.run_dir, self.worker.device)
        finished = checkpoint["epoch"] if checkpoint else 0
        log = self._open(config_yaml, finished)
        if checkpoint is None:
            before = after = self._judge()
            self._finish_epoch(0, before, before, log)
        else:
            for modality, trainer in self.trainers.items():
                trainer.restore(checkpoint["towers"][modality])
            before, after = checkpoint["before"], checkpoint["after"]
        for epoch in range(finished + 1, self.epochs + 1):
            for trainer in self.trainers.values():
                for values in trainer.epoch(epoch):
                    if log:
                        log.add(values)
            after = self._judge()
            self._finish_epoch(epoch, before, after, log)
        report = {"encoder": _name(self.epochs)} | after | {OFF_THE_SHELF: before}
        if self.worker.is_first:
            write_json(self.run_dir / RETRIEVAL_FILE, report)
        dist.barrier()
        return report

    def _open(self, config_yaml: str, finished: int) -> Log | None:
        dist.barrier()  # every rank has looked at the folder before the first one fills it
        if not self.worker.is_first:
            return None
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with new_file(self.run_dir / CONFIG_FILE) as aside:
            aside.write_text(config_yaml)
        return Log(self.run_dir, finished)

    def _judge(self) -> dict[str, Any]:
        both = {modality: task.vectors(self.held_out) for modality, task in self.tasks.items()}
        sides = [{modality: pair[side] for modality, pair in both.items()} for side in (0, 1)]
        items, queries = (_with_fused(side) for side in sides)
        return retrieval_report(
            items,
            {space: vectors.any(dim=1) for space, vectors in items.items()},
            queries,
            {space: vectors.any(dim=1) for space, vectors in queries.items()},
            torch.from_numpy(self.searches.purchased[self.held_out]),
            torch.from_numpy(self.searches.hard[self.held_out]),
            {},
            self.worker,
        )

    def _finish_epoch(
        self, epoch: int, before: dict[str, Any], after: dict[str, Any], log: Log | None
    ) -> None:
        if log is None:
            return
        log.add({"epoch": epoch} | after)
        encoders = {modality: task.encoder for modality, task in self.tasks.items()}
        save_encoders(self.run_dir, EncoderSet(_name(epoch), self.specs, encoders))
        towers = {modality: trainer.state() for modality, trainer in self.trainers.items()}
        save_checkpoint(
            self.run_dir, {"epoch": epoch, "towers": towers, "before": before, "after": after}
        )


def _with_fused(vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Several modalities side by side as well, so that their cosines average."""
    if len(vectors) == 1:
        return vectors
    fused = torch.nn.functional.normalize(torch.cat(list(vectors.values()), dim=1), dim=1)
    return vectors | {"fused": fused}


def _name(epochs: int) -> str:
    return SCL if epochs else OFF_THE_SHELF
