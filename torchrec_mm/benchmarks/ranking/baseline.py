"""The ranker's baseline: straightforward PyTorch, the shape of today's public reference code.

What arXiv:2512.07216's authors publish does this job in this way: one row an impression with the
user's whole history in it, read through pandas; dense padded batches; nn.Embedding(sparse=True)
and SparseAdam under DistributedDataParallel and gloo; no masks. Nothing here is slow on purpose:
no cosine is computed twice, only one row group is held, and the metrics are left to evaluation.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from torchrec_mm.benchmarks.ranking.baseline_network import BaselineNetwork
from torchrec_mm.benchmarks.ranking.baseline_rows import rows_loader
from torchrec_mm.benchmarks.ranking.sides import Quality, RankerTask, steady_rate
from torchrec_mm.data.encode.taobao_mm_files import USER
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.parallel.process_group import Worker, process_group


class Baseline:
    """Model and optimizers of one rank."""

    def __init__(self, task: RankerTask, device: torch.device) -> None:
        torch.manual_seed(task.seed)
        self.device = device
        self.network = BaselineNetwork(task.folder / "joined", task.embedding_dim, device)
        self.model = averaged(self.network, device)
        tables = list(self.network.tables.parameters())
        in_tables = {id(parameter) for parameter in tables}
        dense = [p for p in self.network.parameters() if id(p) not in in_tables]
        sparse = torch.optim.SparseAdam(tables, lr=1e-2)
        self.optimizers = (sparse, torch.optim.AdamW(dense, lr=1e-3))

    def step(self, batch: dict[str, Tensor]) -> int:
        """Learn from one batch; its number of impressions."""
        batch = self.on_device(batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(self.model(batch), batch["label"]).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return len(batch["label"])

    def on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch where the network is."""
        return {name: column.to(self.device) for name, column in batch.items()}


def averaged(network: BaselineNetwork, device: torch.device) -> nn.Module:
    """The network, its gradients averaged over ranks: by gloo, as NCCL takes no sparse ones."""
    if device.type == "cuda" and dist.get_world_size() == 1:
        return network
    return DistributedDataParallel(network, process_group=dist.new_group(backend="gloo"))


def speed(task: RankerTask) -> float:
    """Impressions a second of all ranks together, file to update; one rank's part."""
    with process_group() as worker:
        baseline = Baseline(task, worker.device)
        batches = endless(task, worker)
        return steady_rate(lambda: baseline.step(next(batches)), task.seconds, worker.device)


def quality(task: RankerTask) -> Quality:
    """Exact AUC and GAUC on the test set after ``task.epochs`` over the training set; one rank."""
    with process_group() as worker:
        baseline = Baseline(task, worker.device)
        joined, how = task.folder / "joined", (task.batch_impressions, task.baseline_workers)
        impressions = 0
        for _ in range(task.epochs):
            for batch in rows_loader(joined / "train.parquet", *how):
                impressions += baseline.step(batch)
        baseline.network.eval()
        users, labels, logits = [], [], []
        with torch.no_grad():
            for batch in rows_loader(joined / "test.parquet", *how):
                users.append(batch[USER].numpy())
                labels.append(batch["label"].numpy())
                logits.append(baseline.network(baseline.on_device(batch)).cpu().numpy())
        columns = [np.concatenate(column) for column in (users, labels, logits)]
        return Quality(auc(*columns[1:]), gauc(*columns).gauc, impressions)


def endless(task: RankerTask, worker: Worker) -> Iterator[dict[str, Tensor]]:
    """This rank's training batches, the file again and again."""
    path: Path = task.folder / "joined" / "train.parquet"
    share = task.batch_impressions // worker.world_size
    while True:
        yield from rows_loader(path, share, task.baseline_workers, worker.rank, worker.world_size)
