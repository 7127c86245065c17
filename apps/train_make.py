"""Phase two, step one: train MAKE on clicks, from item vectors alone, for several epochs.

python -m apps.train_make --data market --vectors vectors --run_dir runs/make
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.files import beside
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, core_for_reading, process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharded_vectors import vector_source
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.collators import collator_for_make
from torchrec_mm.ranking.make import MakeRanker, MakeSpec
from torchrec_mm.runs.run_folder import RunFolder, check_run_dir
from torchrec_mm.train.encode_or_open import check_source, encoded_requests, reads_of
from torchrec_mm.train.fit import FitSettings, fit


@dataclass(frozen=True)
class TrainMakeConfig:
    """Train MAKE, the click model that sees nothing but item vectors."""

    vectors: Path
    """Folder of item vectors."""

    run_dir: Path
    """Folder to create."""

    data: Path | None = None
    """Folder that holds items/ and requests/train; they are encoded first."""

    encoded: Path | None = None
    """Encoded data set of apps.encode, instead of data."""

    vector_storage: Literal["mapped", "sharded"] = "mapped"
    """mapped: the file, memory-mapped on every host; sharded: row-wise over the ranks' memory."""

    epochs: int = 5
    """Passes over requests/train."""

    batch_requests: int = 128
    """Most requests in a global batch, over all ranks; fewer where padding them takes too much."""

    batch_behaviours: int | None = None
    """Most behaviours in a global batch, over all ranks: bounds the cost of a step."""

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
    """Steps in which the learning rates grow from 0 to what they are."""

    checkpoint_steps: int = 0
    """Save each time as many steps are done, besides after each epoch; 0 for epochs alone."""

    keep_checkpoints: int = 1
    """How many of the last checkpoints stay, besides the best by test AUC."""

    resume: bool = False
    """Go on with the run in run_dir after its last checkpoint, on any number of processes."""

    allow_keys: tuple[str, ...] = ()
    """Beginnings of names of tensors that a checkpoint need not share with the model."""

    log_every_steps: int = 20
    """Steps in a window: of metrics.jsonl, TensorBoard and the guards."""

    hang_timeout_s: float = 600.0
    """Seconds without a finished step after which all stacks are printed; 0 never prints them."""

    stop_timeout_s: float = 25.0
    """Seconds that saving may take after SIGTERM; torchrun and Slurm kill 30 after it."""

    profile_steps: int = 0
    """Steps to trace, into trace.json in run_dir; 0 for none."""

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_requests", "width", "hidden", "max_behaviours")
        check_source(self.data, self.encoded)
        check_fields(
            self, lambda x: x >= 1, "at least 1", *counts, "keep_checkpoints", "log_every_steps"
        )
        check_fields(self, lambda x: x >= 0, "at least 0", "hang_timeout_s", "profile_steps")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "batch_behaviours")
        check_fields(self, lambda x: x >= 0, "at least 0", "weight_decay", "seed")
        check_fields(self, lambda x: x >= 0, "at least 0", "warmup_steps", "checkpoint_steps")
        check_fields(self, lambda x: x > 0, "above 0", "learning_rate", "stop_timeout_s")
        check_fields(self, lambda x: 0 <= x < 1, "in [0, 1)", "dropout")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(TrainMakeConfig, argv)
    with quiet_libraries(), process_group() as worker, core_for_reading():
        reads = reads_of(config.data, config.encoded, config.vectors)
        check_run_dir(config.run_dir, config.resume, reads)
        with encoded_requests(
            config.data,
            config.encoded,
            beside(config.run_dir, "encoded"),
            worker,
            ("train", "test") if config.test_auc else ("train",),
            max_behaviours=config.max_behaviours,
            reuse=config.resume,
        ) as encoded:
            train(config, encoded, worker)


def train(config: TrainMakeConfig, encoded: Path, worker: Worker) -> None:
    """Open, replicate, fit."""
    vectors = ItemVectors.open(config.vectors)
    source = vector_source(vectors, config.vector_storage, worker)

    def loader(split: str, shuffle_seed: int | None) -> RequestLoader:
        data = EncodedRequests(encoded, split)
        return RequestLoader(
            data,
            collator_for_make(data.items, source, config.max_behaviours),
            BatchLimits.to_learn(
                config.batch_requests, config.batch_behaviours, config.max_behaviours
            ),
            rank=worker.rank,
            world_size=worker.world_size,
            shuffle_seed=shuffle_seed,
            pin_memory=worker.device.type == "cuda",
            collate_ahead=not source.collective,
        )

    torch.manual_seed(config.seed)
    spec = MakeSpec(
        vector_width=vectors.width,
        width=config.width,
        hidden=config.hidden,
        dropout=config.dropout,
    )
    settings = OptimizerSettings(
        learning_rate=config.learning_rate, weight_decay=config.weight_decay
    )
    distributed = distribute(MakeRanker(spec), worker, settings, config.seed)
    test = loader("test", None) if config.test_auc else None
    train = loader("train", config.seed)
    model = {
        "kind": "make",
        "vectors": vectors.origin,
        "train": train.data.sizes,
        "spec": asdict(spec),
    }
    with RunFolder.create(config.run_dir, config, worker, config.resume) as run_folder:
        run_folder.write_model(model)
        fit(distributed, train, run_folder, FitSettings.of(config), test)


if __name__ == "__main__":
    sys.exit(run(main))
