"""Phase two, step two: train the ranker for one epoch, item vectors joined in the chosen way.

python -m apps.train_ranker --method id --data market --run_dir runs/id
torchrun --nproc-per-node 2 -m apps.train_ranker --method simtier+make --data market \
    --vectors vectors --make runs/make --run_dir runs/simtier_make
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.errors import InputError
from torchrec_mm.files import beside, new_file
from torchrec_mm.item_vectors.origin import check_origin
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, core_for_reading, process_group
from torchrec_mm.parallel.quiet import quiet_libraries
from torchrec_mm.parallel.sharded_vectors import vector_source
from torchrec_mm.parallel.sharding import OptimizerSettings, TableOptions, distribute
from torchrec_mm.parallel.tables import read_tables
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.collators import attended_behaviours, collator_for_ranker
from torchrec_mm.ranking.make import MakeSpec, make_spec_from_json
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import RankerSpec, TableSizes, check_raw_ids
from torchrec_mm.ranking.zero_collision import ZeroCollision
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint, list_checkpoints
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import CHECKPOINTS, RunFolder, check_run_dir, read_run
from torchrec_mm.runs.tensor_shards import Pieces
from torchrec_mm.train.encode_or_open import check_source, encoded_requests, reads_of
from torchrec_mm.train.fit import FitSettings, fit


@dataclass(frozen=True)
class TrainRankerConfig:
    """Train the click model: ID embeddings, and item vectors in one of the paper's ways."""

    run_dir: Path
    """Folder to create."""

    data: Path | None = None
    """Folder that holds items/ and requests/train; they are encoded first."""

    encoded: Path | None = None
    """Encoded data set of apps.encode, instead of data; min_count then has no effect."""

    method: Literal[
        "bias", "id", "vector", "simscore", "simtier", "make", "simtier+make", "muse"
    ] = "id"
    """How item vectors join: bias and id use none, bias is smoothed click rates and no network."""

    vectors: Path | None = None
    """Folder of item vectors; needed by all methods but bias and id."""

    vector_storage: Literal["mapped", "sharded"] = "mapped"
    """mapped: the file, memory-mapped on every host; sharded: row-wise over the ranks' memory."""

    make: Path | None = None
    """Folder of a MAKE run trained on the same vectors; needed by make and simtier+make."""

    epochs: int = 1
    """Passes over requests/train; ID models overfit from the second."""

    batch_requests: int = 32
    """Most requests in a global batch, over all ranks; fewer where padding them takes too much."""

    batch_behaviours: int | None = None
    """Most behaviours in a global batch, over all ranks: bounds the cost of a step."""

    learning_rate: float = 1e-3
    """Of Adam, for the dense part."""

    weight_decay: float = 1e-4
    """Of AdamW, for the dense part, per step and unit of learning rate."""

    table_learning_rate: float = 0.05
    """Of row-wise Adagrad, for the tables."""

    table_scale: float = 0.01
    """Initial table weights are uniform in [-table_scale, table_scale)."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings by table; the rest is planned: {item_id: {sharding: row_wise, dtype: fp16}}."""

    zero_collision: dict[str, ZeroCollision] = field(default_factory=dict)
    """Tables of user_id or item_id that take ids as they are: {user_id: {rows: 65536}}. The ids
    that matter most own a row each, newcomers take over from the weakest, and the rest share."""

    plan: Path | None = None
    """The plan.json of another run, whose sharding and kernels to keep."""

    communication: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of embeddings and their gradients between ranks; less than fp32 needs NCCL."""

    embedding_dim: int = 16
    """Width of every table, the bias column included; a multiple of 4."""

    hidden: tuple[int, ...] = (64, 32)
    """Widths of the MLP's hidden layers."""

    num_tiers: int = 20
    """Tiers of SimTier over cosines in [-1, 1]."""

    min_count: int = 10
    """Items that training shows less often share one row: the regularisation that counts most."""

    max_behaviours: int = 50
    """Newest behaviours of each request that target attention sees."""

    searched_behaviours: int = 1000
    """Newest behaviours of each request that muse searches, where data is encoded first."""

    kept: int = 50
    """Behaviours that muse keeps of those it searches, for each candidate."""

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
        check_source(self.data, self.encoded)
        uses_vectors = self.method not in ("bias", "id")
        if uses_vectors != (self.vectors is not None):
            rule = "be given" if uses_vectors else "not be given"
            raise ValueError(f"vectors must {rule} with method {self.method}, got {self.vectors}")
        if not uses_vectors:
            rule = f"mapped with method {self.method}, which uses no vectors"
            check_fields(self, lambda x: x == "mapped", rule, "vector_storage")
        uses_make = "make" in self.method
        if uses_make != (self.make is not None):
            rule = "be given" if uses_make else "not be given"
            raise ValueError(f"make must {rule} with method {self.method}, got {self.make}")
        counts = ("epochs", "batch_requests", "min_count", "max_behaviours", "hidden")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts, "kept", "searched_behaviours")
        check_fields(self, lambda x: x >= 1, "at least 1", "keep_checkpoints", "log_every_steps")
        check_fields(self, lambda x: x >= 0, "at least 0", "hang_timeout_s", "profile_steps")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "batch_behaviours")
        check_fields(self, lambda x: x >= 2, "at least 2", "num_tiers")
        check_fields(self, lambda x: x >= 0, "at least 0", "weight_decay", "table_scale", "seed")
        check_fields(self, lambda x: x >= 0, "at least 0", "warmup_steps", "checkpoint_steps")
        check_fields(self, lambda x: x > 0, "above 0", "learning_rate", "table_learning_rate")
        check_fields(self, lambda x: x > 0, "above 0", "stop_timeout_s")
        check_fields(self, lambda x: x > 0 and x % 4 == 0, "a multiple of 4", "embedding_dim")
        read_tables(self.tables)
        check_raw_ids(self.zero_collision)
        if self.method == "bias" and self.zero_collision:
            raise ValueError(
                "zero_collision must be empty with method bias, which has no tables, "
                f"got {', '.join(self.zero_collision)}"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(TrainRankerConfig, argv)
    with quiet_libraries(), process_group() as worker, core_for_reading():
        reads = reads_of(config.data, config.encoded, config.vectors, config.make)
        check_run_dir(config.run_dir, config.resume, reads)
        with encoded_requests(
            config.data,
            config.encoded,
            beside(config.run_dir, "encoded"),
            worker,
            ("train", "test") if config.test_auc else ("train",),
            max_behaviours=config.searched_behaviours
            if config.method == "muse"
            else config.max_behaviours,
            min_count=config.min_count,
            reuse=config.resume,
        ) as encoded:
            if config.method == "bias":
                train_bias(config, encoded, worker)
            else:
                train_network(config, encoded, worker)


def train_bias(config: TrainRankerConfig, encoded: Path, worker: Worker) -> None:
    """Count clicks; the checkpoint holds the offsets."""
    train = EncodedRequests(encoded, "train")
    with RunFolder.create(config.run_dir, config, worker, config.resume) as run_folder:
        run_folder.write_model(
            {
                "kind": "ranker",
                "method": "bias",
                "vectors": None,
                "vocabulary": train.meta["vocabulary"],
                "train": train.sizes,
                "spec": None,
            }
        )
        save_files(run_folder, encoded)
        if not list_checkpoints(run_folder.checkpoints):
            pieces = {name: Pieces.of(t) for name, t in BiasModel.fit(train).tensors().items()}
            with Checkpointer(run_folder.checkpoints) as checkpointer:
                checkpointer.save(pieces, Position(), companions=run_folder.companions)


def train_network(config: TrainRankerConfig, encoded: Path, worker: Worker) -> None:
    """Open, shard, fit."""
    vectors = ItemVectors.open(config.vectors) if config.vectors else None
    train = EncodedRequests(encoded, "train")
    source = vector_source(vectors, config.vector_storage, worker) if vectors else None
    spec = ranker_spec(config, train, vectors)

    def loader(data: EncodedRequests, shuffle_seed: int | None) -> RequestLoader:
        return RequestLoader(
            data,
            collator_for_ranker(spec, data.items, source, config.max_behaviours),
            BatchLimits.to_learn(
                config.batch_requests,
                config.batch_behaviours,
                attended_behaviours(spec, config.max_behaviours),
            ),
            rank=worker.rank,
            world_size=worker.world_size,
            shuffle_seed=shuffle_seed,
            pin_memory=worker.device.type == "cuda",
            collate_ahead=not (source and source.collective),
        )

    test = loader(EncodedRequests(encoded, "test"), None) if config.test_auc else None
    torch.manual_seed(config.seed)
    model = Ranker(spec)
    if config.make:
        made = read_checkpoint(find_checkpoint(config.make / CHECKPOINTS).folder, "model.make.")
        model.network.make.load_state_dict(made)
    settings = OptimizerSettings(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        table_learning_rate=config.table_learning_rate,
        table_scale=config.table_scale,
    )
    options = TableOptions(read_tables(config.tables), config.communication, config.plan)
    distributed = distribute(model, worker, settings, config.seed, options)
    with RunFolder.create(config.run_dir, config, worker, config.resume) as run_folder:
        run_folder.write_model(
            {
                "kind": "ranker",
                "method": config.method,
                "vectors": vectors.origin if vectors else None,
                "vocabulary": train.meta["vocabulary"],
                "train": train.sizes,
                "spec": asdict(spec),
            }
        )
        save_files(run_folder, encoded)
        distributed.save_plan(run_folder.path)
        fit(distributed, loader(train, config.seed), run_folder, FitSettings.of(config), test)


def ranker_spec(
    config: TrainRankerConfig, train: EncodedRequests, vectors: ItemVectors | None
) -> RankerSpec:
    """The shape that the config gives a ranker on this data."""
    vocabularies = Vocabularies.load(train.folder / "vocabularies.safetensors")
    return RankerSpec(
        method=config.method,
        tables=TableSizes.of(vocabularies, train.meta, config.method),
        embedding_dim=config.embedding_dim,
        hidden=config.hidden,
        num_tiers=config.num_tiers,
        vector_width=vectors.width if vectors else 0,
        base_rate=min(max(train.click_rate, 1e-6), 1 - 1e-6),
        make=read_make(config, vectors) if config.make else None,
        behaviour_tables=tuple(train.meta["behaviour_item_features"]),
        kept=config.kept,
        zero_collision=config.zero_collision,
    )


def read_make(config: TrainRankerConfig, vectors: ItemVectors) -> MakeSpec:
    """The shape of the MAKE run, checked against this run.

    Raises:
        InputError: MAKE saw other vectors, or has another number of hidden layers.
    """
    _, model = read_run(config.make, "make")
    check_origin(vectors, model["vectors"], f"make {config.make}")
    spec = make_spec_from_json(model["spec"])
    if len(spec.hidden) != len(config.hidden):
        raise InputError(
            f"hidden must have as many layers as MAKE's, {len(spec.hidden)}, got {config.hidden}"
        )
    return spec


def save_files(run_folder: RunFolder, encoded: Path) -> None:
    """What evaluation needs besides the checkpoint."""
    if run_folder.worker.is_first:
        for name in ("vocabularies.safetensors", "item_frequency.safetensors"):
            with new_file(run_folder.path / name) as aside:
                shutil.copyfile(encoded / name, aside)


if __name__ == "__main__":
    sys.exit(run(main))
