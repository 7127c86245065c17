"""The training loop: batches through TorchRec's pipeline, losses and train AUC on the way."""

import gc
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
from tqdm import tqdm

from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.metrics.binned_auc import BinnedAuc
from torchrec_mm.metrics.slices import finite_or_none
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.parallel.strides import with_equal_strides
from torchrec_mm.train.checkpoint import save_checkpoint, training_tensors
from torchrec_mm.train.predictions import exact_auc
from torchrec_mm.train.run_folder import RunFolder

LOG_EVERY_STEPS = 20


@dataclass(frozen=True)
class EpochResult:
    """Means over one epoch; ``train_auc`` is of each impression's logit before its own update."""

    loss: float
    train_auc: float
    impressions_per_s: float


def fit(
    distributed: DistributedModel,
    train: RequestLoader,
    run: RunFolder,
    epochs: range,
    test: RequestLoader | None,
) -> None:
    """Train for the epochs that are left, with a checkpoint and a line of metrics after each.

    Args:
        distributed: model and optimizers, restored already when resuming.
        train: this rank's training batches. run: where to write. epochs: e.g. range(2, 5).
        test: requests to score after each epoch for the metrics, or None.
    """
    run.forget_epochs_after(epochs.start)
    for epoch in epochs:
        result = train_epoch(distributed, train, run, epoch)
        metrics = {
            "epoch": epoch + 1,
            "loss": result.loss,
            "train_auc": finite_or_none(result.train_auc),
        }
        if test is not None:
            test_auc = exact_auc(distributed, test, run.path)
            metrics["test_auc"] = None if test_auc is None else finite_or_none(test_auc)
        metrics["impressions_per_s"] = round(result.impressions_per_s, 1)
        run.log(**metrics)  # before the checkpoint: a line too many is dropped by a resume
        tensors = training_tensors(distributed) | {"epochs": torch.tensor(epoch + 1)}
        save_checkpoint(run.checkpoint, tensors)


def train_epoch(
    distributed: DistributedModel, train: RequestLoader, run: RunFolder, epoch: int
) -> EpochResult:
    """One pass over the training requests. Collective."""
    # So that dropout is the same after a resume, and differs between ranks.
    torch.manual_seed(1_000_003 * epoch + 1_009 * train.shuffle_seed + train.rank)
    pipeline = distributed.pipeline()
    batches = with_equal_strides(train.epoch(epoch))
    counted = BinnedAuc(distributed.worker.device)
    losses: list[torch.Tensor] = []
    start = time.perf_counter()
    gc.collect()
    gc.freeze()  # the collector would walk all tables' Python objects again and again
    bar = tqdm(
        range(len(train)),
        desc=f"epoch {epoch + 1}",
        disable=None if distributed.worker.is_first else True,
    )
    for step in bar:
        loss, logits, labels, mask, _ = pipeline.progress(batches)
        losses.append(loss)
        counted.add(labels[mask], logits[mask])
        if (step + 1) % LOG_EVERY_STEPS == 0 or step + 1 == len(train):
            window = _mean_over_ranks(losses[-LOG_EVERY_STEPS:])
            bar.set_postfix(loss=f"{window:.4f}", refresh=False)
            run.log(step=epoch * len(train) + step + 1, loss=window)
    pipeline.detach()
    gc.unfreeze()
    seconds = time.perf_counter() - start
    dist.all_reduce(counted.counts)
    impressions = int(counted.counts.sum())
    return EpochResult(_mean_over_ranks(losses), counted.value(), impressions / seconds)


def _mean_over_ranks(losses: list[torch.Tensor]) -> float:
    """Mean of the global batches' losses: each rank holds its weighted share of every one."""
    mean = torch.stack(losses).mean()
    dist.all_reduce(mean)
    return mean.item() / dist.get_world_size()
