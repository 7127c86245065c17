"""Our side of the short benchmark: what ``apps.train_ranker`` trains with its own flags, timed.

Every setting is the command's default: a default that changes is measured changed.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from torchrec_mm.benchmarks.ranking.learner import (
    Learner,
    num_requests,
    quality_of,
    speed_of,
    train_ranker,
)
from torchrec_mm.benchmarks.ranking.sides import Quality, ShortTask
from torchrec_mm.commands import call
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.files import new_folder
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharded_vectors import vector_source
from torchrec_mm.parallel.sharding import distribute
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.scoring.frozen_make import frozen_make
from torchrec_mm.train.rates import with_learning_rate

MAKE_RUN = Path("make", "run")


def speed(task: ShortTask) -> float:
    """Impressions a second of all ranks together, file to update; one rank's part."""
    return speed_of(partial(learner, task), task.seconds)


def quality(task: ShortTask) -> Quality:
    """Exact AUC and GAUC on the test set after ``task.epochs`` over the training set; one rank."""
    return quality_of(partial(learner, task), task.epochs)


def learner(task: ShortTask, worker: Worker) -> Learner:
    """The ranker that the command would train."""
    data = EncodedRequests(task.folder / "encoded", "train")
    config = train_ranker_config(task, data)
    vectors = ItemVectors.open(config.vectors) if config.vectors else None
    source = vector_source(vectors, config.vector_storage, worker) if vectors else None
    spec = config.spec(data, vectors)
    torch.manual_seed(config.seed)
    model = Ranker(spec)
    if model.network.make is not None:
        model.network.make.load_state_dict(train_ranker().make_weights(config))
    distributed = distribute(model, worker, config.optimizer(), config.seed)
    make = frozen_make(model, vectors, config.vector_storage, worker)
    return Learner(data, spec, source, distributed, config, config.max_behaviours, make)


def train_ranker_config(task: ShortTask, data: EncodedRequests) -> Any:
    """A TrainRankerConfig of nothing but what the task has to say."""
    config = train_ranker().TrainRankerConfig(
        run_dir=task.folder,  # nothing is written there
        encoded=task.folder / "encoded",
        method=task.method,
        vectors=None if task.method == "id" else task.folder / "vectors",
        make=task.folder / MAKE_RUN if "make" in task.method else None,
        seed=task.seed,
    )
    if task.batch_impressions is not None:
        config = replace(config, batch_requests=num_requests(data, task.batch_impressions))
    return with_learning_rate(config, train_ranker().RATE_PER_REQUEST)


def min_count() -> int:
    """Training occurrences from which an item has a row of its own."""
    return train_ranker().TrainRankerConfig.min_count


def mean_batch(task: ShortTask) -> int:
    """About how many impressions our batches hold."""
    data = EncodedRequests(task.folder / "encoded", "train")
    requests = train_ranker_config(task, data).batch_requests
    return round(requests * data.num_impressions / len(data))


def train_make(encoded: Path, vectors: Path, out: Path) -> None:
    """What ``apps.train_make`` trains with its own flags, in ``out``."""
    with new_folder(out) as aside:
        run_dir = aside / MAKE_RUN.name
        call("train_make", "--encoded", encoded, "--vectors", vectors, "--run_dir", run_dir)
