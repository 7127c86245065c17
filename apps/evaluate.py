"""Score requests/test with a ranker's checkpoint: exact AUC, GAUC, log loss, and slices.

python -m apps.evaluate --run_dir runs/id --data market
torchrun --nproc-per-node 2 -m apps.evaluate --run_dir runs/id --data market
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoded import EncodedRequests
from torchrec_mm.data.epoch import BatchLimits
from torchrec_mm.data.frequency import ItemFrequency
from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.data.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.item_vectors.origin import check_origin
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharded_vectors import vector_source
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.inputs import collator_for_ranker, rows_of_vectors
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import spec_from_json
from torchrec_mm.train.checkpoint import load_checkpoint, read_checkpoint
from torchrec_mm.train.checkpoint_folders import find_checkpoint
from torchrec_mm.train.evaluation import Evaluated, RequestReader, measure
from torchrec_mm.train.inputs import check_source, encoded_requests
from torchrec_mm.train.predictions import Scored, predict
from torchrec_mm.train.run_folder import CHECKPOINTS, read_run
from torchrec_mm.train.state import model_pieces


@dataclass(frozen=True)
class EvaluateConfig:
    """Load a sharded checkpoint, in one process or several, and measure it on requests/test.

    GAUC: the impression-weighted mean of each user's AUC over all of that user's test
    impressions, users with one class left out, ties one half.
    """

    run_dir: Path
    """Folder of a ranker run; metrics.json is written into it."""

    data: Path | None = None
    """Folder that holds items/ and requests/test; they are encoded first, as training was."""

    encoded: Path | None = None
    """Encoded data set that the run was trained on, instead of data; its split test is scored."""

    vectors: Path | None = None
    """Folder of item vectors of the same encoder, where they have moved or items were added."""

    vector_storage: Literal["mapped", "sharded"] = "mapped"
    """mapped: the file, memory-mapped on every host; sharded: row-wise over the ranks' memory."""

    checkpoint: str = "latest"
    """Which of the run's checkpoints: latest, best (by test AUC in training) or its steps."""

    predictions: Path | None = None
    """Parquet file to write every impression's logit to."""

    batch_requests: int = 256
    """Requests in a global batch, over all ranks."""

    def __post_init__(self) -> None:
        check_source(self.data, self.encoded)
        check_fields(self, lambda x: x >= 1, "at least 1", "batch_requests")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(EvaluateConfig, argv)
    trained, model = read_run(config.run_dir, "ranker")
    checkpoint = find_checkpoint(config.run_dir / CHECKPOINTS, config.checkpoint).folder
    muse = model["method"] == "muse"
    with quiet_libraries(), process_group() as worker:
        with encoded_requests(
            config.data,
            config.encoded,
            config.run_dir / ".encoded",
            worker,
            ("test",),
            max_behaviours=trained["searched_behaviours" if muse else "max_behaviours"],
            vocabularies=Vocabularies.load(config.run_dir / "vocabularies.safetensors"),
        ) as encoded:
            data = EncodedRequests(encoded, "test")
            evaluate(config, checkpoint, trained, model, data, worker)


def evaluate(
    config: EvaluateConfig,
    checkpoint: Path,
    trained: dict[str, Any],
    model: dict[str, Any],
    data: EncodedRequests,
    worker: Worker,
) -> None:
    """Score, measure, write."""
    vectors = open_vectors(config, trained, model)
    if model["method"] == "bias":
        scored = score_bias(config, checkpoint, data, worker)
    else:
        scored = score(config, checkpoint, trained, model, data, vectors, worker)
    evaluated = Evaluated(
        data,
        ItemFrequency.load(config.run_dir / "item_frequency.safetensors"),
        rows_of_vectors(data.items, vectors) >= 0 if vectors else None,
    )
    metrics = measure(scored, evaluated, config.run_dir, worker, config.predictions) | {
        "method": method_name(model["method"], vectors),
        "vectors": vectors and {"encoder": vectors.encoder, "modality": vectors.modality},
        "seed": trained["seed"],
        "checkpoint": str(checkpoint),
    }
    if worker.is_first:
        write_json(config.run_dir / "metrics.json", metrics)
        print(
            f"{metrics['method']}: AUC {in_words(metrics['auc'])}, "
            f"GAUC {in_words(metrics['gauc'])}, "
            f"log loss {metrics['log_loss']:.4f} on {metrics['impressions']} impressions"
        )


def open_vectors(
    config: EvaluateConfig, trained: dict[str, Any], model: dict[str, Any]
) -> ItemVectors | None:
    """Vectors of the origin that the run was trained with; others are refused."""
    if model["vectors"] is None:
        if config.vectors:
            raise InputError(
                f"vectors must not be given for a run of method {model['method']}, "
                f"got {config.vectors}"
            )
        if config.vector_storage != "mapped":
            raise InputError(
                f"vector_storage must be mapped for a run of method {model['method']}, "
                f"got {config.vector_storage}"
            )
        return None
    folder = config.vectors or Path(trained["vectors"])
    vectors = ItemVectors.open(folder)
    check_origin(vectors, model["vectors"], f"run_dir {config.run_dir}")
    return vectors


def score(
    config: EvaluateConfig,
    checkpoint: Path,
    trained: dict[str, Any],
    model: dict[str, Any],
    data: EncodedRequests,
    vectors: ItemVectors | None,
    worker: Worker,
) -> Iterator[Scored]:
    """This rank's requests, scored by a network."""
    spec = spec_from_json(model["spec"])
    distributed = distribute(Ranker(spec), worker, OptimizerSettings(0.0, 0.0), seed=0)
    load_checkpoint(checkpoint, model_pieces(distributed), ignore=("optimizer.", "epoch."))
    source = vector_source(vectors, config.vector_storage, worker) if vectors else None
    loader = RequestLoader(
        data,
        collator_for_ranker(spec, data.items, source, trained["max_behaviours"]),
        BatchLimits(config.batch_requests),
        rank=worker.rank,
        world_size=worker.world_size,
        collate_ahead=not (source and source.collective),
    )
    return predict(distributed, loader)


def score_bias(
    config: EvaluateConfig, checkpoint: Path, data: EncodedRequests, worker: Worker
) -> Iterator[Scored]:
    """This rank's share of the requests, scored without a network."""
    bias = BiasModel.from_tensors(read_checkpoint(checkpoint, ""))
    read = RequestReader(data)
    mine = np.array_split(np.arange(len(data)), worker.world_size)[worker.rank]
    for start in range(0, len(mine), config.batch_requests):
        requests = read(mine[start : start + config.batch_requests])
        logits = bias.logits(requests, data.items)
        yield Scored(requests.rows, requests.candidates.lengths, requests.labels, logits)


def in_words(value: float | None) -> str:
    """Four digits, or that there is no such figure: all labels alike, for example."""
    return "undefined" if value is None else f"{value:.4f}"


def method_name(method: str, vectors: ItemVectors | None) -> str:
    """The method as tables call it: random vectors make it the control."""
    return f"{method}/random" if vectors and vectors.encoder == "random" else method


if __name__ == "__main__":
    sys.exit(run(main))
