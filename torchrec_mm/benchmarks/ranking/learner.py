"""A ranker of ours with its data, as ``apps.train_ranker`` trains it, timed or scored."""

from collections.abc import Callable, Generator, Iterable
from importlib import import_module
from itertools import count
from typing import Any

import numpy as np

from torchrec_mm.benchmarks.ranking.sides import Quality, steady_rate
from torchrec_mm.commands import module_of
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.data.stream.vector_source import VectorSource
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.log_loss import log_loss
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group, reserve_reader_core
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.ranking.collators import attended_behaviours, collator_for_ranker
from torchrec_mm.ranking.frozen_make import FrozenMake
from torchrec_mm.ranking.outputs import RankingOutputs
from torchrec_mm.ranking.spec import RankerSpec
from torchrec_mm.scoring.predictions import predict
from torchrec_mm.train.settings import TrainSettings, learning_batches


class Learner:
    """Data, model and optimizers of one rank."""

    def __init__(
        self,
        data: EncodedRequests,
        spec: RankerSpec,
        source: VectorSource | None,
        distributed: DistributedModel,
        settings: TrainSettings,
        max_behaviours: int,
        make: FrozenMake | None = None,
    ) -> None:
        """Hold what learns and what from.

        Args:
            data: requests/train. spec: of the model in ``distributed``.
            source: of its item vectors, None without. settings: of the batches.
            max_behaviours: newest of each request that target attention sees.
            make: for the methods that hold MAKE; it has learned from ``data``.
        """
        self.data, self.spec, self.source = data, spec, source
        self.distributed, self.settings = distributed, settings
        self.max_behaviours, self.make = max_behaviours, make

    def loader(self, data: EncodedRequests) -> RequestLoader:
        """This rank's batches."""
        make = self.make
        if make is not None and data.split == "train":
            make = make.of_training()
        collator = collator_for_ranker(
            self.spec, data.items, self.source, self.max_behaviours, make
        )
        attended = attended_behaviours(self.spec, self.max_behaviours)
        worker = self.distributed.worker
        return learning_batches(data, collator, attended, self.settings, self.source, worker)

    def batches(self, epochs: Iterable[int]) -> Generator[RequestBatch, None, None]:
        """Training batches of all the epochs, one after another."""
        loader = self.loader(self.data)
        for epoch in epochs:
            yield from loader.epoch(epoch, until=1 << 30)


def num_requests(data: EncodedRequests, impressions: int) -> int:
    """How many requests have about as many ``impressions``; at least 1."""
    return max(1, round(impressions * len(data) / data.num_impressions))


def train_ranker() -> Any:
    """The module of the command, whose defaults are measured: a default that changes, changed."""
    return import_module(module_of("train_ranker"))


def speed_of(make: Callable[[Worker], Learner], seconds: float) -> float:
    """Impressions a second of all ranks together, file to update; one rank's part."""
    with suppress_library_warnings(), process_group() as worker:
        learner = make(worker)
        with reserve_reader_core(is_busy=learner.source is not None):
            return _speed(learner, seconds)


def _speed(learner: Learner, seconds: float) -> float:
    pipeline, batches = learner.distributed.pipeline(), learner.batches(count())
    device = learner.distributed.worker.device
    rate = steady_rate(lambda: impressions_in(pipeline.progress(batches)), seconds, device)
    batches.close()
    return rate


def quality_of(make: Callable[[Worker], Learner], epochs: int) -> Quality:
    """Exact AUC and GAUC on the test set after training for the epochs; one rank."""
    with suppress_library_warnings(), process_group() as worker, reserve_reader_core():
        learner = make(worker)
        pipeline, batches = learner.distributed.pipeline(), learner.batches(range(epochs))
        impressions = 0
        while True:
            try:
                impressions += impressions_in(pipeline.progress(batches))
            except StopIteration:
                break
        pipeline.detach()
        test = EncodedRequests(learner.data.folder, "test")
        scored = list(predict(learner.distributed, learner.loader(test)))
        users = np.concatenate([test.read(group).user_ids for group in test.groups])
        users = np.concatenate([np.repeat(users[part.requests], part.lengths) for part in scored])
        labels = np.concatenate([part.labels for part in scored])
        logits = np.concatenate([part.logits for part in scored])
        of_users = gauc(users, labels, logits).gauc
        return Quality(auc(labels, logits), of_users, impressions, log_loss(labels, logits))


def impressions_in(outputs: RankingOutputs) -> int:
    """How many impressions a step learned from, of what the pipeline returned."""
    return len(outputs.logits)
