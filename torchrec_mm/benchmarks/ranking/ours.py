"""Our side of the ranker benchmark: what ``apps.train_ranker --method muse`` trains, timed."""

from collections.abc import Generator, Iterable
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.benchmarks.ranking.sides import Quality, RankerTask, steady_rate
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group, reserve_reader_core
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.collators import attended_behaviours, collator_for_ranker
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import RankerSettings, RankerSpec
from torchrec_mm.scoring.predictions import predict
from torchrec_mm.train.settings import TrainSettings, learning_batches

RECENT = 50


class Ours:
    """Data, model and optimizers of one rank."""

    def __init__(self, task: RankerTask, worker: Worker) -> None:
        self.task, self.worker = task, worker
        self.data = EncodedRequests(task.folder / "encoded", "train")
        self.vectors = ItemVectors.open(task.folder / "vectors")
        shape = RankerSettings(
            embedding_dim=task.embedding_dim, hidden=(256, 128, 64), num_tiers=22, kept=50
        )
        self.spec = RankerSpec.of("muse", shape, self.data, self.vectors)
        if task.table_rows:
            rows = {**self.spec.tables.item, "item_id": task.table_rows}
            self.spec = replace(self.spec, tables=replace(self.spec.tables, item=rows))
        torch.manual_seed(task.seed)
        settings = OptimizerSettings(
            learning_rate=3e-3, weight_decay=1e-4, table_learning_rate=0.01, table_scale=0.01
        )
        self.distributed = distribute(Ranker(self.spec), worker, settings, task.seed)

    def loader(self, data: EncodedRequests) -> RequestLoader:
        """Batches of about the impressions asked for."""
        requests = max(1, round(self.task.batch_impressions * len(data) / data.num_impressions))
        source = MappedVectors(self.vectors)
        collator = collator_for_ranker(self.spec, data.items, source, RECENT)
        attended = attended_behaviours(self.spec, RECENT)
        settings = TrainSettings(epochs=1, seed=self.task.seed, batch_requests=requests)
        return learning_batches(data, collator, attended, settings, source, self.worker)

    def batches(self, epochs: Iterable[int]) -> Generator[RequestBatch, None, None]:
        """Training batches of all the epochs, one after another."""
        loader = self.loader(self.data)
        for epoch in epochs:
            for batch in loader.epoch(epoch):
                yield spread(batch, self.task.table_rows) if self.task.table_rows else batch


def speed(task: RankerTask) -> float:
    """Impressions a second of all ranks together, file to update; one rank's part."""
    with suppress_library_warnings(), process_group() as worker, reserve_reader_core():
        ours = Ours(task, worker)
        pipeline, batches = ours.distributed.pipeline(), ours.batches(count())

        def step() -> Tensor:
            _, _, _, candidate_mask, _ = pipeline.progress(batches)
            return candidate_mask.sum()

        rate = steady_rate(step, task.seconds, worker.device)
        batches.close()
        return rate


def quality(task: RankerTask) -> Quality:
    """Exact AUC and GAUC on the test set after ``task.epochs`` over the training set; one rank."""
    with suppress_library_warnings(), process_group() as worker, reserve_reader_core():
        ours = Ours(task, worker)
        pipeline, batches = ours.distributed.pipeline(), ours.batches(range(task.epochs))
        impressions = 0
        while True:
            try:
                _, _, _, candidate_mask, _ = pipeline.progress(batches)
            except StopIteration:
                break
            impressions += int(candidate_mask.sum())
        pipeline.detach()
        test = EncodedRequests(task.folder / "encoded", "test")
        scored = list(predict(ours.distributed, ours.loader(test)))
        users = np.concatenate([test.read(group).user_ids for group in test.groups])
        users = np.concatenate([np.repeat(users[part.requests], part.lengths) for part in scored])
        labels = np.concatenate([part.labels for part in scored])
        logits = np.concatenate([part.logits for part in scored])
        return Quality(auc(labels, logits), gauc(users, labels, logits).gauc, impressions)


def spread(batch: RequestBatch, table_rows: int) -> RequestBatch:
    """As many look-ups of the items' table, of rows drawn from all of a larger one."""
    item_ids = batch.item_ids
    assert item_ids is not None  # our ranker has a table of items
    rows = torch.randint(table_rows, item_ids.values().shape, dtype=item_ids.values().dtype)
    return replace(
        batch,
        item_ids=KeyedJaggedTensor(
            item_ids.keys(), rows, lengths=item_ids.lengths(), stride=item_ids.stride()
        ),
    )
