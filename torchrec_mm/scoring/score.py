"""Scores of a ranker's checkpoint for encoded requests, whichever its method."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from torchrec_mm.config import check_fields
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors, check_origin
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.scoring import distribute_for_scoring
from torchrec_mm.parallel.sharded_vectors import Storage, collates_ahead, vector_source
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.collators import attended_behaviours, collator_for_ranker, with_codes
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import spec_from_json
from torchrec_mm.runs.checkpoint import load_checkpoint, read_checkpoint
from torchrec_mm.runs.tensor_shards import model_shards
from torchrec_mm.scoring.evaluation import RequestReader
from torchrec_mm.scoring.frozen_make import frozen_make
from torchrec_mm.scoring.predictions import Scored, predict
from torchrec_mm.scoring.trained_run import TrainedRun


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """The flags of a command that scores: which checkpoint, and how."""

    vector_storage: Storage = "mapped"
    """mapped: the file, memory-mapped on every host; sharded: row-wise over the ranks' memory."""
    checkpoint: str = "latest"
    """Which of the run's checkpoints: latest, best (by test AUC in training) or its steps."""
    batch_requests: int = 256
    """Most requests in a global batch, over all ranks; fewer where padding them takes too much."""
    at: dict[str, str | int | float | None] = field(default_factory=dict)
    """Values that all impressions are given, as in '{candidate_position: 0, candidate_source:
    null}', whatever the requests hold: of features that are known only once something was shown."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "batch_requests")
        for name, value in self.at.items():
            # Of a value that is none of the types, the parser hands on all that was written.
            if isinstance(value, str) and value.startswith("{"):
                raise InputError(f"at {name} must be text, a number or null, got {value}")


def open_vectors(trained: TrainedRun, given: Path | None, storage: Storage) -> ItemVectors | None:
    """Vectors of the origin that the run was trained with, None if it uses none.

    Args:
        given: where they are now; None: where they were. storage: how they are held.

    Raises:
        InputError: of another origin, gone, or given to a run that uses none.
    """
    if trained.model["vectors"] is None:
        if given:
            rule = f"vectors must not be given for a run of method {trained.method}"
            raise InputError(f"{rule}, got {given}")
        if storage != "mapped":
            rule = f"vector_storage must be mapped for a run of method {trained.method}"
            raise InputError(f"{rule}, got {storage}")
        return None
    folder = given or trained.input("vectors")
    assert folder is not None  # whatever trained with vectors was given some
    vectors = ItemVectors.open(folder)
    check_origin(vectors, trained.model["vectors"], f"run_dir {trained.path}")
    return vectors


def score(
    trained: TrainedRun,
    data: EncodedRequests,
    vectors: ItemVectors | None,
    settings: ScoreSettings,
    worker: Worker,
) -> Iterator[Scored]:
    """This rank's share of the requests, ascending, scored by the checkpoint. Collective.

    Of a MAKE of several folds all requests get the mean, also those that a ranker was trained on.

    Raises:
        InputError: the requests were encoded for another ranker, or the checkpoint is another's.
    """
    if trained.method == "bias":
        return score_bias(trained.checkpoint, data, settings.batch_requests, worker)
    spec = spec_from_json(trained.model["spec"])
    items, num_rows = data.items, data.num_rows
    if codebooks := trained.codebooks:
        assert vectors is not None  # codes are of vectors
        items, num_rows = with_codes(items, vectors, codebooks), num_rows | codebooks.tables
    spec.tables.check(num_rows, data.folder)
    ranker = Ranker(spec)
    sharded = distribute_for_scoring(ranker, worker, trained.tables)
    shards = model_shards(sharded.model)
    load_checkpoint(trained.checkpoint, shards, ignore=("optimizer.", "epoch."))
    source = vector_source(vectors, settings.vector_storage, worker) if vectors else None
    make = frozen_make(ranker, vectors, settings.vector_storage, worker)
    newest = trained.config["max_behaviours"]
    loader = RequestLoader(
        data,
        collator_for_ranker(spec, items, source, newest, make),
        BatchLimits.to_score(settings.batch_requests, attended=attended_behaviours(spec, newest)),
        rank=worker.rank,
        world_size=worker.world_size,
        collate_ahead=collates_ahead(source, worker),
    )
    return predict(sharded, loader)


def score_bias(
    checkpoint: Path, data: EncodedRequests, batch_requests: int, worker: Worker
) -> Iterator[Scored]:
    """This rank's share of the requests, scored without a network."""
    bias = BiasModel.from_tensors(read_checkpoint(checkpoint, ""))
    read = RequestReader(data)
    mine = np.array_split(np.arange(len(data)), worker.world_size)[worker.rank]
    for start in range(0, len(mine), batch_requests):
        requests = read(mine[start : start + batch_requests])
        logits = bias.logits(requests, data.items)
        yield Scored(requests.rows, requests.candidates.lengths, requests.labels, logits)
