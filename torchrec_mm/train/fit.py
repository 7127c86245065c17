"""The training loop: batches through TorchRec's pipeline; losses, AUC, checkpoints on the way."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.metrics.slices import finite_or_none
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.parallel.zero_collision import flush_evictions
from torchrec_mm.runs.checkpoint import load_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import RunFolder
from torchrec_mm.runs.stop import Stop, Stopped
from torchrec_mm.scoring.predictions import exact_auc
from torchrec_mm.train.guards import Guard, Step
from torchrec_mm.train.observer import Observer, table_bytes
from torchrec_mm.train.settings import TrainSettings
from torchrec_mm.train.state import Training


def fit(
    distributed: DistributedModel,
    train: RequestLoader,
    run: RunFolder,
    settings: TrainSettings,
    test: RequestLoader | None = None,
    finish: Callable[[], None] | None = None,
) -> None:
    """Train for the epochs that are left; a checkpoint and a line of metrics after each.

    Args:
        distributed: model and optimizers as they begin.
        train: this rank's training batches. run: where to write.
        test: requests to score after each epoch for the metrics, or None.
        finish: what is done to the model after its last step, before that is saved, or None.
            Collective. Between the two a run does not stop: what a step left is saved once.

    Raises:
        InputError: the latest checkpoint does not fit, or one could not be written.
        TrainingDiverged: the loss became NaN or infinite.
        Stopped: a rank got SIGTERM; everything is saved.
    """
    training = Training(distributed)
    with (
        Stop(settings.stop_timeout_s) as stop,
        Checkpointer(run.checkpoints, settings.keep_checkpoints) as checkpointer,
    ):
        if settings.resume:
            restore(run, training, settings.allow_keys)
        checkpointer.reserve(training.shards())
        run.drop_records_after(training.position)
        with Observer(
            run,
            training.position,
            hang_timeout_s=settings.hang_timeout_s,
            profile_steps=settings.profile_steps,
        ) as observer:
            observer.write(training.position.step, {"table_bytes": table_bytes(distributed)})
            guard = Guard(train.data, lambda: last_checkpoint(run, checkpointer))
            loop = Loop(
                training, run, settings, checkpointer, observer, guard, stop, finish is not None
            )
            try:
                with frozen_garbage():
                    for epoch in range(training.position.epoch, settings.epochs):
                        loop.train_epoch(train)
                        if finish is not None and epoch + 1 == settings.epochs:
                            finish()
                        loop.end_epoch(epoch, test)
            except Stopped:
                loop.save_in_mid_epoch()
                raise


def restore(run: RunFolder, training: Training, allow: tuple[str, ...] = ()) -> None:
    """Go on where the latest checkpoint was taken, if there is one. Collective."""
    if latest := run.latest:
        training.distributed.create_optimizer_state()
        load_checkpoint(latest.folder, training.shards(), allow=allow)
        training.position = latest.position
        if not latest.position.requests_done:
            training.totals.clear()  # an epoch that ended where its steps were saved before
        training.distributed.set_step(latest.position.step)


def last_checkpoint(run: RunFolder, checkpointer: Checkpointer) -> Path | None:
    """The latest on disk, once nothing is being written. Collective."""
    checkpointer.wait()
    return latest.folder if (latest := run.latest) else None


@dataclass
class Loop:
    """One epoch after another; holds what a step needs.

    finishes: whether something is still to be done to the model after the last step.
    """

    training: Training
    run: RunFolder
    settings: TrainSettings
    checkpointer: Checkpointer
    observer: Observer
    guard: Guard
    stop: Stop
    finishes: bool = False

    def __post_init__(self) -> None:
        optimizer = self.training.distributed.optimizer
        self.rates = [(group, group["lr"]) for group in optimizer.param_groups]
        self.saved: Position | None = None

    def train_epoch(self, train: RequestLoader) -> None:
        """Do what is left of an epoch's steps. Collective."""
        training, position = self.training, self.training.position
        ends = train.ends(position.epoch, done=position.requests_done)
        batches = train.epoch(
            position.epoch, done=position.requests_done, until=self.settings.epochs
        )
        batches = self.observer.seen(batches)
        pipeline = training.distributed.pipeline()
        self.resumed_with, start = training.totals.impressions(), time.perf_counter()
        watched = self.observer.steps(ends, position.epoch, training.totals.auc)
        with watched as steps:
            for end in steps:
                self._before_step()
                # What a model of rankings returns: ``RankingOutputs`` in ranking/outputs.py.
                loss, logits, labels, offsets, rows = pipeline.progress(batches)
                training.totals.add(loss, logits, labels)
                self.guard.add(Step(training.position, loss, logits, offsets, rows))
                self._after_step(int(end), last=end == ends[-1])
        pipeline.detach()
        self.seconds = time.perf_counter() - start

    def end_epoch(self, epoch: int, test: RequestLoader | None) -> None:
        """Measure, log, start a checkpoint. ``epoch``: from 0; ``test``: as ``fit``. Collective."""
        training, test_figures = self.training, {}
        if test is not None:  # before the sums are closed, for it may stop meanwhile
            auc = exact_auc(training.distributed, test, self.run.path, self.stop.check)
            test_figures["test_auc"] = None if auc is None else finite_or_none(auc)
        summary = training.totals.close_epoch()
        speed = (summary.impressions - self.resumed_with) / self.seconds
        self.run.log(  # before the checkpoint: a line too many is dropped by a resume
            epoch=epoch + 1,
            loss=summary.loss,
            train_auc=finite_or_none(summary.auc),
            impressions=summary.impressions,
            impressions_per_s=round(speed, 1),
            **test_figures,
        )
        training.position = Position(step=training.position.step, epoch=epoch + 1)
        self.save(test_figures.get("test_auc"))

    def save(self, metric: float | None = None) -> None:
        """Start to write a checkpoint, unless training has gone wrong. Collective."""
        self.guard.check()
        self.training.totals.reduce()
        self.saved = self.training.position
        self.checkpointer.save(self.training.shards(), self.saved, metric, self.run.config_files)

    def save_in_mid_epoch(self) -> None:
        """Have everything on disk, and say so. Collective."""
        if self.saved != self.training.position:
            flush_evictions(self.training.distributed.model)
            self.save()
        self.checkpointer.wait()
        self.stop.say(self.training.position.step)

    def _before_step(self) -> None:
        step, rank = self.training.position.step, self.training.distributed.worker.rank
        if warmup := self.settings.warmup_steps:
            for group, rate in self.rates:  # the optimizer hands it on to the tables' kernels
                group["lr"] = rate * min(1.0, (step + 1) / warmup)
        # So that dropout is the same after a resume, and differs between ranks.
        seed = hash((self.settings.seed, step, rank)) % (1 << 63)  # of integers: not salted
        # Not torch.manual_seed: without a CUDA context that formats a stack trace each time.
        torch.default_generator.manual_seed(seed)
        if self.training.distributed.worker.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _after_step(self, requests_done: int, last: bool) -> None:
        step = self.training.position.step + 1
        self.training.position = Position(
            step=step, epoch=self.training.position.epoch, requests_done=requests_done
        )
        if step % self.settings.log_every_steps == 0 or last:
            self.guard.check()
            totals = self.training.totals
            self.observer.end_window(step, totals.close_window(), totals.auc)
            dense = self.training.distributed.dense_optimizer.param_groups[0]
            self.observer.write(step, {"learning_rate": dense["lr"]})
        is_due = self.settings.is_saved(step)
        if is_due or last:  # the test scores after an epoch are those of its checkpoint
            flush_evictions(self.training.distributed.model)
        if is_due and not last:
            self.save()
        is_end = last and self.training.position.epoch + 1 == self.settings.epochs
        if not (is_end and self.finishes):
            self.stop.check()


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
