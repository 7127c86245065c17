"""The baseline of the short benchmark: plain PyTorch, the shape of FuxiCTR's DIN.

One row an impression with its padded history, a DataLoader, one nn.Embedding a column, which item
and history share, and one Adam for everything, dense gradients of the tables included. Nothing
here is slow on purpose: a batch is sliced out of arrays in memory at once, where FuxiCTR collates
row by row, and the activation unit has ReLU, where FuxiCTR's Dice costs more.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from torchrec_mm.benchmarks.ranking.short_baseline_network import PlainDIN
from torchrec_mm.benchmarks.ranking.short_rows import (
    GROUP_BY,
    LABEL,
    ROWS_FILE,
    JoinedRows,
    rows_loader,
)
from torchrec_mm.benchmarks.ranking.sides import Quality, ShortTask, steady_rate
from torchrec_mm.documents import read_json
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.ranking.spec import RankerSettings

LEARNING_RATE = 1e-3
SCORED_BATCH = 4096


class ShortBaseline:
    """Data, model and optimizer of one rank."""

    def __init__(self, task: ShortTask, worker: Worker) -> None:
        assert task.batch_impressions is not None  # only ours has a batch of its own
        torch.manual_seed(task.seed)
        self.device, joined = worker.device, task.folder / "joined"
        rows = JoinedRows(joined / "train.parquet")
        self.train = rows_loader(
            rows,
            task.batch_impressions,
            task.baseline_workers,
            generator=torch.Generator().manual_seed(task.seed),
            worker=worker,
        )
        self.network = self.network_of(joined, rows.columns).to(self.device)
        alone = worker.world_size == 1
        self.model = self.network if alone else DistributedDataParallel(self.network)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATE)

    def network_of(self, joined: Path, columns: Mapping[str, Tensor]) -> PlainDIN:
        """For the rows in a folder, which have these columns."""
        settings = RankerSettings()  # as wide and as deep as ours
        return PlainDIN(
            read_json(joined / ROWS_FILE), columns, settings.embedding_dim, settings.hidden
        )

    def step(self, batch: dict[str, Tensor]) -> int:
        """Learn from one batch; its number of impressions."""
        batch = self.on_device(batch)
        self.optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(self.model(batch), batch[LABEL]).backward()
        self.optimizer.step()
        return len(batch[LABEL])

    def on_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch where the network is."""
        return {name: column.to(self.device, non_blocking=True) for name, column in batch.items()}

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Training batches, one epoch after another without an end."""
        while True:
            yield from self.train


def speed(task: ShortTask) -> float:
    """Impressions a second of all ranks together; one rank's part.

    The file is read before the clock starts, as FuxiCTR reads it once.
    """
    with process_group() as worker:
        baseline = ShortBaseline(task, worker)
        batches = baseline.batches()
        return steady_rate(lambda: baseline.step(next(batches)), task.seconds, worker.device)


def quality(task: ShortTask) -> Quality:
    """Exact AUC and GAUC on the test set after ``task.epochs`` over the training set; one rank."""
    with process_group() as worker:
        baseline = ShortBaseline(task, worker)
        impressions = sum(baseline.step(b) for _ in range(task.epochs) for b in baseline.train)
        baseline.network.eval()
        test = JoinedRows(task.folder / "joined" / "test.parquet")
        logits = []
        with torch.no_grad():
            for batch in rows_loader(test, SCORED_BATCH, 0):
                logits.append(baseline.network(baseline.on_device(batch)).cpu().numpy())
        labels, scores = test.columns[LABEL].numpy(), np.concatenate(logits)
        users = test.columns[GROUP_BY].numpy()
        return Quality(auc(labels, scores), gauc(users, labels, scores).gauc, impressions)
