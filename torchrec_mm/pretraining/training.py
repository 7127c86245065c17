"""Train one tower: optimizer, schedule, one epoch at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker, gather_rows
from torchrec_mm.pretraining.modality import ModalityTask
from torchrec_mm.pretraining.pairs import rank_batches
from torchrec_mm.pretraining.tower import LossSettings, Tower


@dataclass(frozen=True)
class TrainSettings:
    """How a tower is trained.

    epochs: passes over the searches. batch_size: searches of a global batch. learning_rate: of
    the head, backbone_learning_rate: of the trainable layers; both fall to zero along a cosine.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    backbone_learning_rate: float
    weight_decay: float
    seed: int
    loss: LossSettings


class TowerTrainer:
    """A tower, its optimizer and its data; ``epoch`` trains one pass."""

    def __init__(self, task: ModalityTask, settings: TrainSettings, worker: Worker) -> None:
        """All ranks build it with equal arguments.

        Raises:
            InputError: fewer pairs than a batch, or a batch that does not split over the ranks.
        """
        if settings.batch_size % worker.world_size:
            raise InputError(
                f"batch_size must be a multiple of the {worker.world_size} processes, "
                f"got {settings.batch_size}"
            )
        if settings.batch_size > len(task.pairs):
            raise InputError(
                f"batch_size must be at most the {len(task.pairs)} searches to train "
                f"--modality {task.modality} on, got {settings.batch_size}"
            )
        self.task, self.settings, self.worker = task, settings, worker
        self.tower = Tower(task.trained, settings.loss, gather_rows).to(worker.device)
        self._parallel = DistributedDataParallel(
            self.tower,
            device_ids=[worker.device] if worker.device.type == "cuda" else None,
            forward_sync_buffers=False,  # every rank's bank gets the same keys already
            static_graph=True,  # allows for weights no loss depends on, such as a text pooler
        )
        self._optimizer = torch.optim.AdamW(self._parameter_groups())
        self.steps_per_epoch = len(task.pairs) // settings.batch_size

    def epoch(self, epoch: int) -> Iterator[dict[str, Any]]:
        """Train one pass, epoch >= 1; yields what to log of each step, the same on every rank."""
        seed = self.settings.seed * 1_000_003 + epoch
        batches = rank_batches(
            len(self.task.pairs),
            self.settings.batch_size,
            seed,
            self.worker.rank,
            self.worker.world_size,
        )
        done = (epoch - 1) * self.steps_per_epoch
        label = f"{self.task.modality}: epoch {epoch}/{self.settings.epochs}"
        for i, rows in enumerate(tqdm(batches, label, disable=not self.worker.is_first)):
            rate = self._set_learning_rate(done + i)
            loss, parts = self._step(rows)
            yield {
                "modality": self.task.modality,
                "epoch": epoch,
                "step": done + i + 1,
                "loss": loss,
                "info_nce": parts[0],
                "triplet": parts[1],
                "temperature": self.tower.log_temperature.exp().item(),
                "learning_rate": rate,
            }

    def state(self) -> dict[str, Any]:
        """Everything that the next epoch depends on: tensors, numbers and strings only."""
        return {"tower": self.tower.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what ``state`` gave."""
        self.tower.load_state_dict(state["tower"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _step(self, rows) -> tuple[float, list[float]]:
        batch = self.task.pairs.batch(rows, self.task.load, self.worker.device)
        loss, parts = self._parallel(batch)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.tower.after_step()
        mean = gather_rows(torch.cat([loss.detach()[None], parts])[None]).mean(dim=0).tolist()
        return mean[0], mean[1:]

    def _set_learning_rate(self, step: int) -> float:
        total = self.settings.epochs * self.steps_per_epoch
        share = (1 + math.cos(math.pi * step / total)) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * share
        return self.settings.learning_rate * share

    def _parameter_groups(self) -> list[dict[str, Any]]:
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.tower.named_parameters():
            if parameter.requires_grad:
                in_backbone = ".backbone." in f".{name}"
                peak = (
                    self.settings.backbone_learning_rate
                    if in_backbone
                    else self.settings.learning_rate
                )
                decay = 0.0 if parameter.ndim < 2 else self.settings.weight_decay
                groups.setdefault((peak, decay), []).append(parameter)
        return [
            {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
            for (peak, decay), parameters in groups.items()
        ]
