"""The training loop of phase one: batches through SCL; figures and checkpoints on the way."""

import math
import time
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from torchrec_mm.errors import TrainingDiverged
from torchrec_mm.pretraining.encoder.side import PairBatch
from torchrec_mm.pretraining.pairs.pair_loader import PairLoader
from torchrec_mm.pretraining.pairs.side_reader import check_corrupt
from torchrec_mm.pretraining.scl.settings import FitSettings
from torchrec_mm.pretraining.scl.training import Trainer
from torchrec_mm.runs.checkpoint import load_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import RunFolder
from torchrec_mm.runs.scalars import Scalars
from torchrec_mm.runs.stop import Stop, Stopped
from torchrec_mm.runs.watchdog import Watchdog


def fit(
    trainer: Trainer,
    loader: PairLoader,
    run: RunFolder,
    settings: FitSettings,
    start: Position,
    after_epoch: Callable[[int], float | None],
) -> None:
    """Train for the epochs that are left; a checkpoint after each. Collective.

    Args:
        trainer: as it begins, or as ``restore`` left it.
        loader: this rank's batches. run: where to write.
        start: where training goes on.
        after_epoch: called with the number of finished epochs, before their checkpoint; gives
            what the best checkpoint is chosen by, higher is better, or None.

    Raises:
        InputError: a checkpoint could not be written, or too many pictures are corrupt.
        TrainingDiverged: the loss became NaN or infinite.
        Stopped: a rank got SIGTERM; everything is saved.
    """
    with (
        Stop(settings.stop_timeout_s) as stop,
        Checkpointer(run.checkpoints, settings.keep_checkpoints) as checkpointer,
        Scalars(run, start.step) as scalars,
    ):
        checkpointer.reserve(trainer.shards())
        loop = _Loop(trainer, loader, run, settings, checkpointer, scalars, start, stop)
        batches = loader.batches(settings.epochs, start.step)
        for epoch in range(start.epoch, settings.epochs):
            loop.train_epoch(batches)
            metric = after_epoch(epoch + 1)
            loop.position = Position(step=loop.position.step, epoch=epoch + 1)
            loop.save(metric)


def restore(run: RunFolder, trainer: Trainer) -> Position:
    """Go on where the latest checkpoint was taken, if there is one. Collective."""
    latest = run.latest
    if latest is None:
        return Position()
    load_checkpoint(latest.folder, trainer.shards())
    trainer.restored()
    return latest.position


class _Loop:
    """Steps of one epoch after another; holds what a step needs."""

    def __init__(
        self,
        trainer: Trainer,
        loader: PairLoader,
        run: RunFolder,
        settings: FitSettings,
        checkpointer: Checkpointer,
        scalars: Scalars,
        start: Position,
        stop: Stop,
    ) -> None:
        self.trainer, self.loader, self.run, self.settings = trainer, loader, run, settings
        self.checkpointer, self.scalars, self.position = checkpointer, scalars, start
        self.stop, self.total_steps = stop, settings.epochs * loader.steps_per_epoch

    def train_epoch(self, batches: Iterator[PairBatch]) -> None:
        """Do what is left of an epoch."""
        epoch, per_epoch = self.position.epoch, self.loader.steps_per_epoch
        left = range(self.position.step, (epoch + 1) * per_epoch)
        window = Window(self.trainer)
        label = f"epoch {epoch + 1}/{self.settings.epochs}"
        with (
            Watchdog(self.settings.hang_timeout_s) as watchdog,
            tqdm(left, label, unit="step", disable=not self.run.worker.is_first) as bar,
        ):
            for step in bar:
                batch = next(batches).to(self.trainer.worker.device)
                window.add(batch, *self.trainer.step(batch, step, self.total_steps))
                done = (step + 1 - epoch * per_epoch) * self.loader.settings.batch_size
                self.position = Position(step=step + 1, epoch=epoch, requests_done=done)
                self._after_step(window, bar, last=step == left[-1])
                watchdog.alive()

    def _after_step(self, window: "Window", bar: tqdm, last: bool) -> None:
        step, is_stopped = self.position.step, self.stop.agreed()
        is_due = is_stopped or (self.settings.is_saved(step) and not last)
        if step % self.settings.log_every_steps == 0 or last or is_due:
            figures = window.close(self.position, self.settings.corrupt_share)
            self.run.log(step=step, **figures)
            self.scalars.write(step, figures)
            bar.set_postfix_str(
                f"loss {figures['loss']:.4f}, {figures['pairs_per_s']:,.0f} pairs/s", refresh=False
            )
        if is_due:
            self.save()
        if is_stopped:
            self.checkpointer.wait()
            self.stop.say(step)
            raise Stopped

    def save(self, metric: float | None = None) -> None:
        """Start to write a checkpoint. Collective."""
        self.checkpointer.save(self.trainer.shards(), self.position, metric, self.run.config_files)


class Window:
    """Figures of the steps since the last line of metrics.jsonl, over all ranks."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.pictures = self.corrupt = 0  # on this rank, since the epoch began or was gone on with
        self._begin()

    def add(self, batch: PairBatch, figures: Tensor, norm: Tensor) -> None:
        """Keep a step's; nothing is waited for."""
        self._figures.append(figures)
        self._norms.append(norm)
        self._pairs += batch.query.num_rows
        self.pictures += batch.pictures
        self.corrupt += batch.corrupt

    def close(self, position: Position, corrupt_share: float) -> dict[str, float]:
        """What to log of the steps, the same on every rank; a new window begins. Collective.

        Raises:
            TrainingDiverged: a figure, or a gradient that was not left out, is no number.
            InputError: more than ``corrupt_share`` of the pictures could not be decoded.
        """
        shape = self._figures[0].shape
        figures = torch.stack(self._figures).sum(dim=0).flatten()
        counts = figures.new_tensor([self._pairs, self.pictures, self.corrupt])
        together = torch.cat([figures, counts])
        dist.all_reduce(together)
        *sums, pairs, pictures, corrupt = together.tolist()
        norms = torch.stack(self._norms)
        if not self.trainer.precision.leaves_steps_out:
            sums.append(norms.sum().item())
        if not all(map(math.isfinite, sums)):
            raise TrainingDiverged(
                f"loss or gradient became {sum(sums)} in the steps up to {position.step} (epoch "
                f"{position.epoch + 1}): try a smaller learning rate, --warmup_steps or --clip_norm"
            )
        check_corrupt(corrupt=int(corrupt), pictures=int(pictures), share=corrupt_share)
        values = self.trainer.scl.named_figures(together[: shape.numel()].view(shape))
        taken = norms[norms.isfinite()]
        weight = self.trainer.scl.settings.triplet_weight
        values |= {
            "loss": sum(
                values[f"{contrast.name}/info_nce"] + weight * values[f"{contrast.name}/triplet"]
                for contrast in self.trainer.scl.contrasts
            ),
            "steps_left_out": len(norms) - len(taken),
            "learning_rate": self.trainer.learning_rate,
            "pairs_per_s": pairs / (time.perf_counter() - self._began),
        }
        if len(taken):
            values["gradient_norm"] = taken.mean().item()
        self._begin()
        return values

    def _begin(self) -> None:
        self._figures: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._pairs, self._began = 0, time.perf_counter()
