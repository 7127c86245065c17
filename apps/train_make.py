"""Phase two, step one: train MAKE on clicks, from item vectors alone, for several epochs.

python -m apps.train_make --data market --vectors vectors --run_dir runs/make
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoding import encode_requests
from torchrec_mm.data.items import read_items
from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.data.requests import read_requests
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.make import MakeRanker, MakeSpec
from torchrec_mm.train.fit import FitSettings, fit
from torchrec_mm.train.run_folder import RunFolder


@dataclass(frozen=True)
class TrainMakeConfig:
    """Train MAKE, the click model that sees nothing but item vectors."""

    data: Path
    """Folder that holds items/ and requests/train."""

    vectors: Path
    """Folder of item vectors."""

    run_dir: Path
    """Folder to create."""

    epochs: int = 5
    """Passes over requests/train."""

    batch_requests: int = 128
    """Requests in a global batch, over all ranks."""

    learning_rate: float = 3e-3
    """Of Adam."""

    weight_decay: float = 1e-4
    """Of AdamW, per step and unit of learning rate."""

    width: int = 32
    """Width that item vectors are projected to, and of MAKE's interest vector."""

    dropout: float = 0.2
    """Share of the projected vectors' entries dropped in training, in [0, 1)."""

    hidden: tuple[int, ...] = (64, 32)
    """Widths of the MLP's hidden layers; the ranker must have as many."""

    max_behaviours: int = 50
    """Newest behaviours used of each request."""

    test_auc: bool = False
    """Score requests/test after each epoch, for metrics.jsonl."""

    seed: int = 0
    """Of the initial weights and the order of requests."""

    warmup_steps: int = 0
    """Steps in which the learning rate grows from 0 to what it is."""

    checkpoint_steps: int = 0
    """Save each time as many steps are done, besides after each epoch; 0 for epochs alone."""

    keep_checkpoints: int = 1
    """How many of the last checkpoints stay, besides the best by test AUC."""

    resume: bool = False
    """Go on with the run in run_dir after its last checkpoint, on any number of processes."""

    allow_keys: tuple[str, ...] = ()
    """Beginnings of names of tensors that a checkpoint need not share with the model."""

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_requests", "width", "hidden", "max_behaviours")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts, "keep_checkpoints")
        check_fields(self, lambda x: x >= 0, "at least 0", "weight_decay", "seed")
        check_fields(self, lambda x: x >= 0, "at least 0", "warmup_steps", "checkpoint_steps")
        check_fields(self, lambda x: x > 0, "above 0", "learning_rate")
        check_fields(self, lambda x: 0 <= x < 1, "in [0, 1)", "dropout")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(TrainMakeConfig, argv)
    with quiet_libraries(), process_group() as worker:
        items = read_items(config.data)
        vectors = ItemVectors.open(config.vectors)

        def loader(split: str, shuffle_seed: int | None) -> RequestLoader:
            folder = config.data / "requests" / split
            requests = read_requests(folder, config.max_behaviours)
            return RequestLoader(
                encode_requests(requests, items, folder, vectors=vectors),
                config.batch_requests,
                rank=worker.rank,
                world_size=worker.world_size,
                shuffle_seed=shuffle_seed,
            )

        train = loader("train", config.seed)
        test = loader("test", None) if config.test_auc else None
        torch.manual_seed(config.seed)
        spec = MakeSpec(vectors.width, config.width, config.hidden, config.dropout)
        settings = OptimizerSettings(config.learning_rate, config.weight_decay)
        distributed = distribute(MakeRanker(spec), worker, settings, config.seed)
        run_folder = RunFolder.create(config.run_dir, config, worker, config.resume)
        run_folder.write_model(
            {"kind": "make", "vectors": vectors.fingerprint, "spec": asdict(spec)}
        )
        fit(distributed, train, run_folder, FitSettings.of(config), test)


if __name__ == "__main__":
    sys.exit(run(main))
