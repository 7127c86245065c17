"""Click probabilities of a ranker's checkpoint for any folder of requests, labelled or not.

python -m apps.predict --run_dir runs/id --requests market/requests/test --output scores.parquet
torchrun --nproc-per-node 2 -m apps.predict --run_dir runs/id --requests today \
    --output scores.parquet
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encode.encode import SCORED, encode_to_score
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.errors import InputError
from torchrec_mm.files import beside
from torchrec_mm.item_vectors.origin import check_origin
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, on_first_rank, process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.scoring import distribute_to_score
from torchrec_mm.parallel.sharded_vectors import vector_source
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.collators import attended_behaviours, collator_for_ranker
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import spec_from_json
from torchrec_mm.runs.checkpoint import load_checkpoint, read_checkpoint
from torchrec_mm.scoring.evaluation import RequestReader, write_scores
from torchrec_mm.scoring.predictions import Scored, predict, shared_folder
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.targets import check_file
from torchrec_mm.train.encode_or_open import first_writes
from torchrec_mm.train.state import model_pieces

Storage = Literal["mapped", "sharded"]


@dataclass(frozen=True)
class PredictConfig:
    """Score requests in batch, in one process or several, into one Parquet file.

    A row a request, in the order of the input (files by name, then rows): user_id, timestamp if
    every request has one, candidate_item_ids, and click_probabilities in their order.
    """

    run_dir: Path
    """Folder of a ranker run."""

    requests: Path
    """Folder of Parquet files like requests/test; labels, and columns that the run does not know,
    are not read, the latter named on stderr. Each request has at least one candidate; behaviours
    may be none."""

    output: Path
    """Parquet file to create or replace, whole or not at all; where all ranks can write."""

    items: Path | None = None
    """Folder like items/, holding every candidate; not given: items/ of the run's data. Ids that
    training never showed are scored by what is known of them: attributes and vectors."""

    vectors: Path | None = None
    """Folder of item vectors of the same encoder; not given: the run's."""

    vector_storage: Storage = "mapped"
    """mapped: the file, memory-mapped on every host; sharded: row-wise over the ranks' memory."""

    checkpoint: str = "latest"
    """Which of the run's checkpoints: latest, best (by test AUC in training) or its steps."""

    batch_requests: int = 256
    """Most requests in a global batch, over all ranks; fewer where padding them takes too much."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "batch_requests")


def main(argv: Sequence[str] | None = None) -> None:
    """Encode, score, write."""
    config = parse(PredictConfig, argv)
    trained = TrainedRun.open(config.run_dir, config.checkpoint)
    vectors = open_vectors(trained, config.vectors, config.vector_storage)
    items = config.items or items_of(trained)
    encode = partial(
        encode_to_score,
        config.requests,
        items,
        max_behaviours=behaviours_read(trained),
        vocabularies=trained.vocabularies,
    )
    with quiet_libraries(), process_group() as worker:
        on_first_rank(lambda: check_file(config.output, "output", [config.requests, items]))
        with shared_folder(beside(config.output, "parts"), worker) as folder:
            first_writes(folder / "encoded", encode)
            data = EncodedRequests(folder / "encoded", SCORED)
            storage = config.vector_storage
            scored = score(trained, data, vectors, storage, config.batch_requests, worker)
            write_scores(scored, data, folder, worker, config.output)
            if worker.is_first:
                print(
                    f"{len(data)} requests with {data.num_impressions} candidates scored by "
                    f"{trained.checkpoint}, written to {config.output}"
                )


def items_of(trained: TrainedRun) -> Path:
    """items/ of the data that the run was trained on."""
    data = trained.input("data", flag="items")
    if data is None:
        raise InputError(
            f"items must be given: {trained.path} was trained on an encoded data set, "
            f"{trained.config['encoded']}, which does not hold them"
        )
    return data / "items"


def behaviours_read(trained: TrainedRun) -> int:
    """Newest behaviours of a request that the model looks at."""
    name = "searched_behaviours" if trained.method == "muse" else "max_behaviours"
    return trained.config[name]


def open_vectors(trained: TrainedRun, given: Path | None, storage: Storage) -> ItemVectors | None:
    """Vectors of the origin that the run was trained with, None if it uses none.

    Args:
        given: where they are now; None: where they were. storage: how they are held.

    Raises:
        InputError: of another origin, gone, or given to a run that uses none.
    """
    if trained.model["vectors"] is None:
        if given:
            raise InputError(
                f"vectors must not be given for a run of method {trained.method}, got {given}"
            )
        if storage != "mapped":
            raise InputError(
                f"vector_storage must be mapped for a run of method {trained.method}, got {storage}"
            )
        return None
    vectors = ItemVectors.open(given or trained.input("vectors"))
    check_origin(vectors, trained.model["vectors"], f"run_dir {trained.path}")
    return vectors


def score(
    trained: TrainedRun,
    data: EncodedRequests,
    vectors: ItemVectors | None,
    storage: Storage,
    batch_requests: int,
    worker: Worker,
) -> Iterator[Scored]:
    """This rank's share of the requests, ascending, scored by the checkpoint. Collective."""
    if trained.method == "bias":
        return score_bias(trained.checkpoint, data, batch_requests, worker)
    spec = spec_from_json(trained.model["spec"])
    spec.tables.check(data.num_rows, data.folder)
    sharded = distribute_to_score(Ranker(spec), worker, trained.tables)
    load_checkpoint(trained.checkpoint, model_pieces(sharded), ignore=("optimizer.", "epoch."))
    source = vector_source(vectors, storage, worker) if vectors else None
    newest = trained.config["max_behaviours"]
    loader = RequestLoader(
        data,
        collator_for_ranker(spec, data.items, source, newest),
        BatchLimits.to_score(batch_requests, attended_behaviours(spec, newest)),
        rank=worker.rank,
        world_size=worker.world_size,
        collate_ahead=not (source and source.collective),
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


if __name__ == "__main__":
    sys.exit(run(main))
