"""Phase two, step two: train the ranker for one epoch, item vectors joined in the chosen way.

python -m apps.train_ranker --method id --data market --run_dir runs/id
torchrun --nproc-per-node 2 -m apps.train_ranker --method simtier+make --data market \
    --vectors vectors --make runs/make --run_dir runs/simtier_make
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoding import encode_requests
from torchrec_mm.data.frequency import ItemFrequency
from torchrec_mm.data.items import read_items
from torchrec_mm.data.loader import RequestLoader
from torchrec_mm.data.requests import Requests, read_requests
from torchrec_mm.data.vocabulary import Vocabularies, build_vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.make import MakeSpec, make_spec_from_json
from torchrec_mm.ranking.network import RankerSpec, TableSizes
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.train.checkpoint import read_checkpoint
from torchrec_mm.train.checkpoint_folders import find_checkpoint
from torchrec_mm.train.checkpointer import Checkpointer
from torchrec_mm.train.fit import FitSettings, fit
from torchrec_mm.train.pieces import Pieces
from torchrec_mm.train.run_folder import CHECKPOINTS, RunFolder, read_run
from torchrec_mm.train.state import Position


@dataclass(frozen=True)
class TrainRankerConfig:
    """Train the click model: ID embeddings, and item vectors in one of the paper's ways."""

    data: Path
    """Folder that holds items/ and requests/train."""

    run_dir: Path
    """Folder to create."""

    method: Literal["bias", "id", "vector", "simscore", "simtier", "make", "simtier+make"] = "id"
    """How item vectors join: bias and id use none, bias is smoothed click rates and no network."""

    vectors: Path | None = None
    """Folder of item vectors; needed by all methods but bias and id."""

    make: Path | None = None
    """Folder of a MAKE run trained on the same vectors; needed by make and simtier+make."""

    epochs: int = 1
    """Passes over requests/train; ID models overfit from the second."""

    batch_requests: int = 32
    """Requests in a global batch, over all ranks."""

    learning_rate: float = 1e-3
    """Of Adam, for the dense part."""

    weight_decay: float = 1e-4
    """Of AdamW, for the dense part, per step and unit of learning rate."""

    table_learning_rate: float = 0.05
    """Of row-wise Adagrad, for the tables."""

    table_scale: float = 0.01
    """Initial table weights are uniform in [-table_scale, table_scale)."""

    embedding_dim: int = 16
    """Width of every table, the bias column included; a multiple of 4."""

    hidden: tuple[int, ...] = (64, 32)
    """Widths of the MLP's hidden layers."""

    num_tiers: int = 20
    """Tiers of SimTier over cosines in [-1, 1]."""

    min_count: int = 10
    """Items that training shows less often share one row: the regularisation that counts most."""

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

    def __post_init__(self) -> None:
        uses_vectors = self.method not in ("bias", "id")
        if uses_vectors != (self.vectors is not None):
            rule = "be given" if uses_vectors else "not be given"
            raise ValueError(f"vectors must {rule} with method {self.method}, got {self.vectors}")
        uses_make = "make" in self.method
        if uses_make != (self.make is not None):
            rule = "be given" if uses_make else "not be given"
            raise ValueError(f"make must {rule} with method {self.method}, got {self.make}")
        counts = ("epochs", "batch_requests", "min_count", "max_behaviours", "hidden")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts, "keep_checkpoints")
        check_fields(self, lambda x: x >= 2, "at least 2", "num_tiers")
        check_fields(self, lambda x: x >= 0, "at least 0", "weight_decay", "table_scale", "seed")
        check_fields(self, lambda x: x >= 0, "at least 0", "warmup_steps", "checkpoint_steps")
        check_fields(self, lambda x: x > 0, "above 0", "learning_rate", "table_learning_rate")
        check_fields(self, lambda x: x > 0 and x % 4 == 0, "a multiple of 4", "embedding_dim")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(TrainRankerConfig, argv)
    with quiet_libraries(), process_group() as worker:
        train = read_requests(config.data / "requests" / "train", config.max_behaviours)
        if config.method == "bias":
            train_bias(config, train, worker)
        else:
            train_network(config, train, worker)


def train_bias(config: TrainRankerConfig, train: Requests, worker: Worker) -> None:
    """Count clicks; the checkpoint holds the offsets."""
    encode_requests(train, read_items(config.data), config.data / "requests" / "train")
    run_folder = RunFolder.create(config.run_dir, config, worker, config.resume)
    run_folder.write_model({"kind": "ranker", "method": "bias", "vectors": None, "spec": None})
    save_files(run_folder, train, Vocabularies({}, {}, {}))
    tensors = {name: Pieces.of(tensor) for name, tensor in BiasModel.fit(train).tensors().items()}
    with Checkpointer(run_folder.checkpoints) as checkpointer:
        checkpointer.save(tensors, Position(), companions=run_folder.companions)


def train_network(config: TrainRankerConfig, train: Requests, worker: Worker) -> None:
    """Read, shard, fit."""
    items = read_items(config.data)
    vectors = ItemVectors.open(config.vectors) if config.vectors else None
    vocabularies = build_vocabularies(train, items, config.min_count)
    make_spec = read_make(config, vectors) if config.make else None

    def loader(requests: Requests, split: str, shuffle_seed: int | None) -> RequestLoader:
        folder = config.data / "requests" / split
        return RequestLoader(
            encode_requests(requests, items, folder, vocabularies, vectors),
            config.batch_requests,
            rank=worker.rank,
            world_size=worker.world_size,
            shuffle_seed=shuffle_seed,
        )

    train_loader = loader(train, "train", config.seed)
    test_loader = None
    if config.test_auc:
        test = read_requests(config.data / "requests" / "test", config.max_behaviours)
        test_loader = loader(test, "test", None)
    spec = RankerSpec(
        method=config.method,
        tables=TableSizes.of(vocabularies),
        embedding_dim=config.embedding_dim,
        hidden=config.hidden,
        num_tiers=config.num_tiers,
        vector_width=vectors.width if vectors else 0,
        base_rate=float(train.labels.mean().clip(1e-6, 1 - 1e-6)),
        make=make_spec,
    )
    torch.manual_seed(config.seed)
    model = Ranker(spec)
    if config.make:
        made = read_checkpoint(find_checkpoint(config.make / CHECKPOINTS).folder, "model.make.")
        model.network.make.load_state_dict(made)
    settings = OptimizerSettings(
        config.learning_rate,
        config.weight_decay,
        config.table_learning_rate,
        config.table_scale,
    )
    distributed = distribute(model, worker, settings, config.seed)
    run_folder = RunFolder.create(config.run_dir, config, worker, config.resume)
    run_folder.write_model(
        {
            "kind": "ranker",
            "method": config.method,
            "vectors": vectors.fingerprint if vectors else None,
            "spec": asdict(spec),
        }
    )
    save_files(run_folder, train, vocabularies)
    fit(distributed, train_loader, run_folder, FitSettings.of(config), test_loader)


def read_make(config: TrainRankerConfig, vectors: ItemVectors) -> MakeSpec:
    """The shape of the MAKE run, checked against this run.

    Raises:
        InputError: MAKE saw other vectors, or has another number of hidden layers.
    """
    _, model = read_run(config.make, "make")
    if model["vectors"] != vectors.fingerprint:
        raise InputError(
            f"make must be trained on the vectors of {config.vectors} "
            f"({vectors.fingerprint[:12]}), {config.make} saw {model['vectors'][:12]}"
        )
    spec = make_spec_from_json(model["spec"])
    if len(spec.hidden) != len(config.hidden):
        raise InputError(
            f"hidden must have as many layers as MAKE's, {len(spec.hidden)}, got {config.hidden}"
        )
    return spec


def save_files(run_folder: RunFolder, train: Requests, vocabularies: Vocabularies) -> None:
    """What evaluation needs besides the checkpoint."""
    if run_folder.worker.is_first:
        vocabularies.save(run_folder.path / "vocabularies.safetensors")
        ItemFrequency.of(train).save(run_folder.path / "item_frequency.safetensors")


if __name__ == "__main__":
    sys.exit(run(main))
