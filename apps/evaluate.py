"""Score requests/test with a ranker's checkpoint: exact AUC, GAUC, log loss, and slices.

python -m apps.evaluate --run_dir runs/id --data market
torchrun --nproc-per-node 2 -m apps.evaluate --run_dir runs/id --data market
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoding import EncodedRequests, encode_requests
from torchrec_mm.data.frequency import ItemFrequency
from torchrec_mm.data.items import ItemCatalogue, read_items
from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.data.requests import Requests, read_requests
from torchrec_mm.data.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.metrics.impression_files import ImpressionFiles
from torchrec_mm.metrics.slices import SLICES, age_slices, frequency_slices, measure_slices
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.network import spec_from_json
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.train.checkpoint import load_checkpoint, read_checkpoint
from torchrec_mm.train.checkpoint_folders import find_checkpoint
from torchrec_mm.train.prediction_files import RankPredictions, merge_predictions
from torchrec_mm.train.predictions import Scored, predict, shared_folder
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

    data: Path
    """Folder that holds items/ and requests/test."""

    vectors: Path | None = None
    """Folder of item vectors, where they have moved since training."""

    checkpoint: str = "latest"
    """Which of the run's checkpoints: latest, best (by test AUC in training) or its steps."""

    predictions: Path | None = None
    """Parquet file to write every impression's logit to."""

    batch_requests: int = 256
    """Requests in a global batch, over all ranks."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "batch_requests")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(EvaluateConfig, argv)
    trained, model = read_run(config.run_dir, "ranker")
    checkpoint = find_checkpoint(config.run_dir / CHECKPOINTS, config.checkpoint)
    with quiet_libraries(), process_group() as worker:
        items = read_items(config.data)
        folder = config.data / "requests" / "test"
        requests = read_requests(folder, trained["max_behaviours"])
        vectors = open_vectors(config, trained, model)
        vocabularies = Vocabularies.load(config.run_dir / "vocabularies.safetensors")
        data = encode_requests(requests, items, folder, vocabularies, vectors)
        frequency = ItemFrequency.load(config.run_dir / "item_frequency.safetensors")
        if model["method"] == "bias":
            scored = score_bias(config, checkpoint.folder, requests, worker)
        else:
            scored = score(config, checkpoint.folder, model, data, worker)
        describe = Describe(requests, items, frequency)
        figures = measure(config, scored, describe, worker)
        if worker.is_first:
            metrics = figures | {
                "vector_coverage": data.vector_coverage if vectors else None,
                "method": method_name(model["method"], vectors),
                "vectors": vectors and {"encoder": vectors.encoder, "modality": vectors.modality},
                "seed": trained["seed"],
                "checkpoint": str(checkpoint.folder),
            }
            write_json(config.run_dir / "metrics.json", metrics)
            print(
                f"{metrics['method']}: AUC {in_words(metrics['auc'])}, "
                f"GAUC {in_words(metrics['gauc'])}, "
                f"log loss {metrics['log_loss']:.4f} on {metrics['impressions']} impressions"
            )


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
    model: dict[str, Any],
    data: EncodedRequests,
    worker: Worker,
) -> Iterator[Scored]:
    """This rank's requests, scored by a network."""
    distributed = distribute(
        Ranker(spec_from_json(model["spec"])), worker, OptimizerSettings(0.0, 0.0), seed=0
    )
    load_checkpoint(checkpoint, model_pieces(distributed), ignore=("optimizer.", "epoch."))
    loader = RequestLoader(
        data, config.batch_requests, rank=worker.rank, world_size=worker.world_size
    )
    return predict(distributed, loader)


def score_bias(
    config: EvaluateConfig, checkpoint: Path, requests: Requests, worker: Worker
) -> Iterator[Scored]:
    """This rank's share of the requests, scored without a network."""
    tensors = read_checkpoint(checkpoint, "")
    logits = BiasModel.from_tensors(tensors).logits(requests)
    mine = np.array_split(np.arange(len(requests)), worker.world_size)[worker.rank]
    for rows in np.array_split(mine, -(-len(mine) // config.batch_requests)):
        positions, lengths = requests.candidates.positions(rows)
        yield Scored(rows, lengths, requests.labels[positions], logits[positions])


@dataclass(frozen=True)
class Describe:
    """What measuring needs to know of impressions besides label and logit."""

    requests: Requests
    items: ItemCatalogue
    frequency: ItemFrequency

    def __call__(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """User and item ids, and membership of slices, of each impression of requests ``rows``."""
        positions, lengths = self.requests.candidates.positions(rows)
        owners = np.repeat(rows, lengths)
        item_ids = self.requests.candidates.values[positions]
        masks = frequency_slices(self.frequency(item_ids))
        if self.requests.timestamps is not None and self.items.created_at is not None:
            created_at = self.items.created_at[self.items.index.rows(item_ids)]
            known = created_at != ItemCatalogue.UNKNOWN_TIME
            masks |= age_slices(self.requests.timestamps[owners], created_at, known)
        return self.requests.user_ids[owners], item_ids, masks


def measure(
    config: EvaluateConfig, scored: Iterable[Scored], describe: Describe, worker: Worker
) -> dict[str, Any]:
    """The figures of metrics.json that depend on labels and logits, on the first rank. Collective.

    Every rank writes what it scored to files in the run folder, which the first rank measures and
    merges, so no process holds all impressions. The run folder is on storage that all ranks share.
    """
    with shared_folder(config.run_dir, worker) as folder:
        files = ImpressionFiles(folder, worker.rank, SLICES)
        with RankPredictions(folder, worker.rank) as rows:
            for part in scored:
                user_ids, item_ids, masks = describe(part.requests)
                files.add(user_ids, part.labels, part.logits, masks)
                if config.predictions:
                    rows.add(part, user_ids, item_ids)
        files.flush()
        dist.barrier()
        if not worker.is_first:
            return {}
        if config.predictions:
            merge_predictions(folder, config.predictions)
        return measure_slices(folder)


def in_words(value: float | None) -> str:
    """Four digits, or that there is no such figure: all labels alike, for example."""
    return "undefined" if value is None else f"{value:.4f}"


def method_name(method: str, vectors: ItemVectors | None) -> str:
    """The method as tables call it: random vectors make it the control."""
    return f"{method}/random" if vectors and vectors.encoder == "random" else method


if __name__ == "__main__":
    sys.exit(run(main))
