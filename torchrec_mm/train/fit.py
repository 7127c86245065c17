"""The training loop: batches through TorchRec's pipeline; losses, AUC, checkpoints on the way."""

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.metrics.slices import finite_or_none
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.parallel.strides import with_equal_strides
from torchrec_mm.parallel.zero_collision import settle_zero_collision
from torchrec_mm.train.checkpoint import load_checkpoint
from torchrec_mm.train.checkpoint_folders import find_checkpoint, list_checkpoints
from torchrec_mm.train.checkpointer import Checkpointer
from torchrec_mm.train.guards import Guard, Step
from torchrec_mm.train.observer import Observer, table_bytes
from torchrec_mm.train.position import Position
from torchrec_mm.train.predictions import exact_auc
from torchrec_mm.train.run_folder import RunFolder
from torchrec_mm.train.state import Training
from torchrec_mm.train.warm_up import WarmUp


@dataclass(frozen=True)
class FitSettings:
    """How long to train, and what to keep.

    epochs: passes over the requests. seed: of dropout. warmup_steps: until the learning rates are
    reached. checkpoint_steps: a checkpoint each time as many steps are done, 0 for the ends of
    epochs alone. keep_checkpoints: how many stay, besides the best by test AUC. resume: go on
    from the latest, if there is one. allow_keys: as ``load_checkpoint`` takes them.
    log_every_steps: steps in a window of figures. hang_timeout_s, profile_steps: as ``Observer``
    takes them.
    """

    epochs: int
    seed: int
    warmup_steps: int = 0
    checkpoint_steps: int = 0
    keep_checkpoints: int = 1
    resume: bool = False
    allow_keys: tuple[str, ...] = ()
    log_every_steps: int = 20
    hang_timeout_s: float = 600.0
    profile_steps: int = 0

    @classmethod
    def of(cls, flags: Any) -> "FitSettings":
        """The fields of a command's flags that have the same names."""
        return cls(**{field.name: getattr(flags, field.name) for field in fields(cls)})


def fit(
    distributed: DistributedModel,
    train: RequestLoader,
    run: RunFolder,
    settings: FitSettings,
    test: RequestLoader | None = None,
) -> None:
    """Train for the epochs that are left; a checkpoint and a line of metrics after each.

    Args:
        distributed: model and optimizers as they begin.
        train: this rank's training batches. run: where to write.
        test: requests to score after each epoch for the metrics, or None.

    Raises:
        InputError: the latest checkpoint does not fit, or one could not be written.
        TrainingDiverged: the loss became NaN or infinite.
    """
    training = Training(distributed)
    with Checkpointer(run.checkpoints, settings.keep_checkpoints) as checkpointer:
        if settings.resume:
            restore(run, training, settings.allow_keys)
        run.forget_after(training.position)
        with Observer(
            run,
            training.position,
            hang_timeout_s=settings.hang_timeout_s,
            profile_steps=settings.profile_steps,
        ) as observer:
            observer.write(training.position.step, {"table_bytes": table_bytes(distributed)})
            guard = Guard(train.data, lambda: last_checkpoint(checkpointer))
            loop = Loop(training, run, settings, checkpointer, observer, guard)
            for epoch in range(training.position.epoch, settings.epochs):
                metrics = loop.train_epoch(train)
                if test is not None:
                    auc = exact_auc(distributed, test, run.path)
                    metrics["test_auc"] = None if auc is None else finite_or_none(auc)
                run.log(**metrics)  # before the checkpoint: a line too many is dropped by a resume
                training.position = Position(training.position.step, epoch + 1)
                loop.save(metrics.get("test_auc"))


def restore(run: RunFolder, training: Training, allow: tuple[str, ...] = ()) -> None:
    """Go on where the latest checkpoint was taken, if there is one. Collective."""
    if list_checkpoints(run.checkpoints):
        latest = find_checkpoint(run.checkpoints)
        training.distributed.create_optimizer_state()
        load_checkpoint(latest.folder, training.pieces(), allow=allow)
        training.position = latest.position
        training.distributed.set_step(latest.position.step)


def last_checkpoint(checkpointer: Checkpointer) -> Path | None:
    """The latest on disk, once nothing is being written. Collective."""
    checkpointer.wait()
    found = list_checkpoints(checkpointer.folder)
    return found[-1].folder if found else None


@dataclass
class Loop:
    """One epoch after another; holds what a step needs."""

    training: Training
    run: RunFolder
    settings: FitSettings
    checkpointer: Checkpointer
    observer: Observer
    guard: Guard

    def __post_init__(self) -> None:
        optimizer = self.training.distributed.optimizer
        self.warm_up = WarmUp(optimizer, self.settings.warmup_steps)

    def train_epoch(self, train: RequestLoader) -> dict[str, Any]:
        """Do what is left of an epoch; its line of metrics, on the first rank. Collective."""
        training, position = self.training, self.training.position
        ends = train.ends(position.epoch, position.requests_done)
        batches = with_equal_strides(train.epoch(position.epoch, position.requests_done))
        batches = self.observer.seen(batches)
        pipeline = training.distributed.pipeline()
        resumed_with = training.totals.impressions()
        start = time.perf_counter()
        with (
            frozen_garbage(),
            self.observer.steps(ends, position.epoch, training.totals.auc) as steps,
        ):
            for end in steps:
                self._before_step()
                loss, logits, labels, mask, rows = pipeline.progress(batches)
                training.totals.add(loss, logits, labels, mask, rows)
                self.guard.add(Step(training.position, loss, logits, mask, rows))
                self._after_step(int(end), last=end == ends[-1])
        pipeline.detach()
        epoch = training.totals.close_epoch()
        seconds = time.perf_counter() - start
        return {
            "epoch": position.epoch + 1,
            "loss": epoch.loss,
            "train_auc": finite_or_none(epoch.auc),
            "impressions": epoch.impressions,
            "impressions_per_s": round((epoch.impressions - resumed_with) / seconds, 1),
        }

    def save(self, metric: float | None = None) -> None:
        """Start to write a checkpoint, unless training has gone wrong. Collective."""
        self.guard.check()
        self.training.totals.reduce()
        self.checkpointer.save(
            self.training.pieces(), self.training.position, metric, self.run.companions
        )

    def _before_step(self) -> None:
        step, rank = self.training.position.step, self.training.distributed.worker.rank
        self.warm_up.set_for(step)
        # So that dropout is the same after a resume, and differs between ranks.
        seeds = np.random.SeedSequence([self.settings.seed, step, rank])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))

    def _after_step(self, requests_done: int, last: bool) -> None:
        step = self.training.position.step + 1
        self.training.position = Position(step, self.training.position.epoch, requests_done)
        if step % self.settings.log_every_steps == 0 or last:
            self.guard.check()
            totals = self.training.totals
            self.observer.end_window(step, totals.close_window(), totals.auc)
        every = self.settings.checkpoint_steps
        is_due = every > 0 and step % every == 0
        if is_due or last:  # the test scores after an epoch are those of its checkpoint
            settle_zero_collision(self.training.distributed.model)
        if is_due and not last:
            self.save()


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """For the block: the collector leaves what is there alone.

    It would walk all tables' Python objects again and again.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
