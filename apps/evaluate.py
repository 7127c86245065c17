"""Score requests/test with a ranker's checkpoint: exact AUC, GAUC, log loss, and slices.

python -m apps.evaluate --run_dir runs/id --data market
torchrun --nproc-per-node 2 -m apps.evaluate --run_dir runs/id --data market
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoded import EncodedItems, EncodedRequests, RequestArrays
from torchrec_mm.data.epoch import BatchLimits
from torchrec_mm.data.frequency import ItemFrequency
from torchrec_mm.data.items import ItemCatalogue
from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.data.parquet import write_table
from torchrec_mm.data.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.metrics.log_loss import log_loss
from torchrec_mm.metrics.slices import age_slices, finite_or_none, frequency_slices, sliced
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.inputs import collator_for_ranker, rows_of_vectors
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import spec_from_json
from torchrec_mm.train.checkpoint import load_checkpoint, read_checkpoint
from torchrec_mm.train.checkpoint_folders import find_checkpoint
from torchrec_mm.train.inputs import check_source, encoded_requests
from torchrec_mm.train.predictions import predict
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
    """Folder of item vectors, where they have moved since training."""

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
    requests = RequestArrays.concatenate([data.read(group) for group in data.groups])
    if model["method"] == "bias":
        tensors = read_checkpoint(checkpoint, "")
        logits = BiasModel.from_tensors(tensors).logits(requests, data.items)
    else:
        logits = score(config, checkpoint, trained, model, data, vectors, worker)
    if worker.is_first:
        frequency = ItemFrequency.load(config.run_dir / "item_frequency.safetensors")
        metrics = measure(requests, data.items, frequency, logits) | {
            "vector_coverage": coverage(requests, data.items, vectors) if vectors else None,
            "method": method_name(model["method"], vectors),
            "vectors": vectors and {"encoder": vectors.encoder, "modality": vectors.modality},
            "seed": trained["seed"],
            "checkpoint": str(checkpoint),
        }
        if config.predictions:
            write_predictions(config.predictions, requests, data.items, logits)
        write_json(config.run_dir / "metrics.json", metrics)
        print(
            f"{metrics['method']}: AUC {in_words(metrics['auc'])}, "
            f"GAUC {in_words(metrics['gauc'])}, "
            f"log loss {metrics['log_loss']:.4f} on {metrics['impressions']} impressions"
        )


def coverage(requests: RequestArrays, items: EncodedItems, vectors: ItemVectors) -> float:
    """Share of candidates and behaviours, counted by occurrence, whose item has a vector."""
    covered = rows_of_vectors(items, vectors) >= 0
    seen = np.concatenate([requests.candidates.values, requests.behaviours.values])
    return float(covered[seen].mean())


def open_vectors(
    config: EvaluateConfig, trained: dict[str, Any], model: dict[str, Any]
) -> ItemVectors | None:
    """The vectors that the run was trained with; others are refused by fingerprint."""
    if model["vectors"] is None:
        if config.vectors:
            raise InputError(
                f"vectors must not be given for a run of method {model['method']}, "
                f"got {config.vectors}"
            )
        return None
    folder = config.vectors or Path(trained["vectors"])
    vectors = ItemVectors.open(folder)
    if vectors.fingerprint != model["vectors"]:
        raise InputError(
            f"vectors must be those of training ({model['vectors'][:12]}), "
            f"{folder} holds {vectors.fingerprint[:12]}"
        )
    return vectors


def score(
    config: EvaluateConfig,
    checkpoint: Path,
    trained: dict[str, Any],
    model: dict[str, Any],
    data: EncodedRequests,
    vectors: ItemVectors | None,
    worker: Worker,
) -> np.ndarray | None:
    """(impressions,) float32 logits on the first rank."""
    spec = spec_from_json(model["spec"])
    distributed = distribute(Ranker(spec), worker, OptimizerSettings(0.0, 0.0), seed=0)
    load_checkpoint(checkpoint, model_pieces(distributed), ignore=("optimizer.", "epoch."))
    loader = RequestLoader(
        data,
        collator_for_ranker(spec, data.items, vectors, trained["max_behaviours"]),
        BatchLimits(config.batch_requests),
        rank=worker.rank,
        world_size=worker.world_size,
    )
    predictions = predict(distributed, loader)
    return None if predictions is None else predictions.logits


def measure(
    requests: RequestArrays, items: EncodedItems, frequency: ItemFrequency, logits: np.ndarray
) -> dict[str, Any]:
    """The figures of metrics.json that depend on labels and logits."""
    owners = requests.candidates.owners()
    users = requests.user_ids[owners]
    grouped = gauc(users, requests.labels, logits)
    masks = frequency_slices(frequency(items.item_ids[requests.candidates.values]))
    if requests.timestamps is not None and items.created_at is not None:
        created_at = items.created_at[requests.candidates.values]
        known = created_at != ItemCatalogue.UNKNOWN_TIME
        masks |= age_slices(requests.timestamps[owners], created_at, known)
    return {
        "auc": finite_or_none(auc(requests.labels, logits)),
        "gauc": finite_or_none(grouped.gauc),
        "log_loss": log_loss(requests.labels, logits),
        "impressions": len(logits),
        "users": grouped.users,
        "gauc_users": grouped.gauc_users,
        "slices": sliced(masks, users, requests.labels, logits),
    }


def in_words(value: float | None) -> str:
    """Four digits, or that there is no such figure: all labels alike, for example."""
    return "undefined" if value is None else f"{value:.4f}"


def method_name(method: str, vectors: ItemVectors | None) -> str:
    """The method as tables call it: random vectors make it the control."""
    return f"{method}/random" if vectors and vectors.encoder == "random" else method


def write_predictions(
    path: Path, requests: RequestArrays, items: EncodedItems, logits: np.ndarray
) -> None:
    """One row an impression, in the order of requests/test and its candidates."""
    owners = requests.candidates.owners()
    columns = {
        "request": owners,
        "user_id": requests.user_ids[owners],
        "item_id": items.item_ids[requests.candidates.values],
        "label": requests.labels,
        "logit": logits,
    }
    write_table(path, pa.table(columns))


if __name__ == "__main__":
    sys.exit(run(main))
