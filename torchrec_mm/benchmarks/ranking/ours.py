"""Our side of the ranker benchmark: what ``apps.train_ranker --method muse`` trains, timed."""

from collections.abc import Generator, Iterable
from dataclasses import replace
from functools import partial

import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.benchmarks.ranking.learner import (
    Learner,
    num_requests,
    quality_of,
    speed_of,
    train_ranker,
)
from torchrec_mm.benchmarks.ranking.sides import Quality, RankerTask
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import RankerSettings, RankerSpec
from torchrec_mm.train.rates import scaled_rate
from torchrec_mm.train.settings import TrainSettings

RECENT = 50


class Ours(Learner):
    """Data, model and optimizers of one rank."""

    def __init__(self, task: RankerTask, worker: Worker) -> None:
        self.table_rows = task.table_rows
        data = EncodedRequests(task.folder / "encoded", "train")
        vectors = ItemVectors.open(task.folder / "vectors")
        shape = RankerSettings(
            embedding_dim=task.embedding_dim, hidden=(256, 128, 64), num_tiers=22, kept=50
        )
        spec = RankerSpec.of("muse", shape, data, vectors)
        if task.table_rows:
            rows = {**spec.tables.item, "item_id": task.table_rows}
            spec = replace(spec, tables=replace(spec.tables, item=rows))
        torch.manual_seed(task.seed)
        requests = num_requests(data, task.batch_impressions)
        optimizer = rates(requests, task.default_rates)
        distributed = distribute(Ranker(spec), worker, optimizer, task.seed)
        settings = TrainSettings(epochs=1, seed=task.seed, batch_requests=requests)
        super().__init__(data, spec, MappedVectors(vectors), distributed, settings, RECENT)

    def batches(self, epochs: Iterable[int]) -> Generator[RequestBatch, None, None]:
        """Training batches of all the epochs, with look-ups all over a larger table."""
        for batch in super().batches(epochs):
            yield spread(batch, self.table_rows) if self.table_rows else batch


def rates(requests: int, by_default: bool) -> OptimizerSettings:
    """For batches of so many requests: those of the command by default, or those for this data."""
    if not by_default:
        return OptimizerSettings(
            learning_rate=3e-3, weight_decay=1e-4, table_learning_rate=0.01, table_scale=0.01
        )
    command = train_ranker()
    defaults = command.TrainRankerConfig
    return OptimizerSettings(
        learning_rate=scaled_rate(requests, command.RATE_PER_REQUEST),
        weight_decay=defaults.weight_decay,
        table_learning_rate=defaults.table_learning_rate,
        table_scale=defaults.table_scale,
    )


def speed(task: RankerTask) -> float:
    """Impressions a second of all ranks together, file to update; one rank's part."""
    return speed_of(partial(Ours, task), task.seconds)


def quality(task: RankerTask) -> Quality:
    """Exact AUC and GAUC on the test set after ``task.epochs`` over the training set; one rank."""
    return quality_of(partial(Ours, task), task.epochs)


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
