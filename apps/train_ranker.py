"""Phase two, step two: train the ranker for one epoch, item vectors joined in the chosen way.

python -m apps.train_ranker --method id --data market --run_dir runs/id
torchrun --nproc-per-node 2 -m apps.train_ranker --method simtier+make --data market \
    --vectors vectors --make runs/make --run_dir runs/simtier_make
python -m apps.train_ranker --follow spool --start_from runs/id --run_dir runs/online
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.files import beside
from torchrec_mm.item_vectors.codes import Codebooks
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.online.batches import WindowBatches
from torchrec_mm.online.flags import check_goes_on, over_run_before
from torchrec_mm.online.follow import (
    follow,
    gone_on_with,
    source_of,
    write_description,
)
from torchrec_mm.online.settings import FollowSettings
from torchrec_mm.parallel.cuda.modes import compile_network, use_tf32
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group, reserve_reader_core
from torchrec_mm.parallel.sharded_vectors import vector_source
from torchrec_mm.parallel.sharding import OptimizerSettings, TableOptions, distribute
from torchrec_mm.parallel.tables import read_tables
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.collators import attended_behaviours, collator_for_ranker, with_codes
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import Method, RankerSettings, RankerSpec, spec_from_json
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import CHECKPOINTS, RunFolder, check_run_dir
from torchrec_mm.runs.tensor_shards import TensorShards
from torchrec_mm.scoring.fit_effects import check_room, clear_effects, fit_effects
from torchrec_mm.scoring.frozen_make import frozen_make
from torchrec_mm.scoring.trained_make import TrainedMake
from torchrec_mm.scoring.trained_run import CODEBOOKS, behaviours_read, write_ranker
from torchrec_mm.serving.scorer import encoder_of
from torchrec_mm.serving.vectors import FollowedVectors
from torchrec_mm.train.encode_or_open import check_source, encoded_requests, reads_of
from torchrec_mm.train.fit import fit
from torchrec_mm.train.rates import with_learning_rate
from torchrec_mm.train.settings import learning_batches

RATE_PER_REQUEST = 0.001 / 32
VECTORS_S = 0.5  # between two looks at a live index


@dataclass(frozen=True, kw_only=True)
class TrainRankerConfig(RankerSettings, FollowSettings):
    """Train the click model: ID embeddings, and item vectors in one of the paper's ways.

    Or, with follow, go on to train it by requests as they arrive.
    """

    run_dir: Path
    """Folder to create."""
    data: Path | None = None
    """Folder that holds items/ and requests/train; they are encoded first."""
    encoded: Path | None = None
    """Encoded data set of apps.encode, instead of data; min_count then has no effect."""
    method: Method = "id"
    """How item vectors join: bias and id use none, bias is smoothed click rates and no network."""
    vectors: Path | None = None
    """Folder of item vectors; needed by all methods but bias and id."""
    make: Path | None = None
    """Folder of a MAKE run trained on the same vectors; needed by make and simtier+make. Of one
    trained on the same requests, each request meets the fold that did not see it."""
    epochs: int = 1
    """Passes over requests/train; ID models overfit from the second."""
    learning_rate: float | None = None
    """Of Adam, for the dense part; null: 0.001 for each 32 of batch_requests, 0.016 from 512 on."""
    weight_decay: float = 1e-4
    """Of AdamW, for the dense part, per step and unit of learning rate."""
    table_learning_rate: float = 0.05
    """Of row-wise Adagrad, for the tables, whatever the batch."""
    table_scale: float = 0.01
    """Initial table weights are uniform in [-table_scale, table_scale)."""
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings by table; the rest is planned: {item_id: {sharding: row_wise, dtype: fp16}}."""
    plan: Path | None = None
    """The plan.json of another run, whose sharding and kernels to keep."""
    communication: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Of embeddings and their gradients between ranks; less than fp32 needs NCCL."""
    compile: bool = False
    """On GPUs, compile the network at its first step: fewer and larger kernels."""
    min_count: int = 10
    """Items that training shows less often share one row: the regularisation that counts most."""
    max_behaviours: int = 50
    """Newest behaviours of each request that target attention sees."""
    searched_behaviours: int = 1000
    """Newest behaviours of each request that muse searches, where data is encoded first."""

    def __post_init__(self) -> None:
        if not self.is_following:
            self._check_method()
        RankerSettings.__post_init__(self)
        FollowSettings.__post_init__(self)
        counts = ("min_count", "max_behaviours", "searched_behaviours")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts)
        check_fields(self, lambda x: x >= 0, "at least 0", "weight_decay", "table_scale")
        check_fields(self, lambda x: x is None or x > 0, "above 0", "learning_rate")
        check_fields(self, lambda x: x > 0, "above 0", "table_learning_rate")
        read_tables(self.tables)

    def _check_method(self) -> None:
        """Refuse what does not go together; a run that is followed was checked when it began."""
        check_source(self.data, self.encoded)
        uses = {"vectors": self.method not in ("bias", "id"), "make": "make" in self.method}
        for name, is_used in uses.items():
            given = getattr(self, name)
            if is_used != (given is not None):
                rule = "be given" if is_used else "not be given"
                raise ValueError(f"{name} must {rule} with method {self.method}, got {given}")
        if self.vectors is None:
            rule = f"mapped with method {self.method}, which uses no vectors"
            check_fields(self, lambda x: x == "mapped", rule, "vector_storage")
        for name in self.left_out:
            if name.partition("_")[0] not in self.method.split("+"):
                raise ValueError(f"left_out must be of method {self.method}, got {name}")
        if self.method == "bias" and self.zero_collision:
            rule = "zero_collision must be empty with method bias, which has no tables, got "
            raise ValueError(rule + ", ".join(self.zero_collision))

    def spec(self, train: EncodedRequests, vectors: ItemVectors | None) -> RankerSpec:
        """The ranker's shape on this data; InputError if MAKE saw other vectors or is less deep."""
        make = None
        if self.make:
            assert vectors is not None  # a method with MAKE uses them
            make = TrainedMake.open(self.make).spec(vectors)
        return RankerSpec.of(self.method, self, train, vectors, make)

    def optimizer(self) -> OptimizerSettings:
        """How tables and the dense part learn."""
        assert self.learning_rate is not None  # see main
        return OptimizerSettings(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            table_learning_rate=self.table_learning_rate,
            table_scale=self.table_scale,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    with over_run_before(TrainRankerConfig, argv) as words:
        config = parse(TrainRankerConfig, words)
    check_goes_on(config)
    config = with_learning_rate(config, RATE_PER_REQUEST)
    reader = reserve_reader_core(is_busy=config.vectors is not None)
    with suppress_library_warnings(), process_group() as worker, reader:
        use_tf32(config.tf32, worker.device)
        if config.is_following:
            follow_requests(config, worker)
            return
        reads = reads_of(config.data, config.encoded, config.vectors, config.make)
        check_run_dir(config.run_dir, config.resume, reads)
        with encoded_requests(
            config.data,
            config.encoded,
            beside(config.run_dir, "encoded"),
            worker,
            config.splits,
            max_behaviours=getattr(config, behaviours_read(config.method)),
            min_count=config.min_count,
            reuse=config.resume,
        ) as encoded:
            learn = count_clicks if config.method == "bias" else train_network
            learn(config, EncodedRequests(encoded, "train"), worker)


def count_clicks(config: TrainRankerConfig, train: EncodedRequests, worker: Worker) -> None:
    """All that method bias learns; the checkpoint holds the offsets."""
    with RunFolder.create(config.run_dir, config, worker, config.resume) as run_folder:
        write_ranker(run_folder, config.method, train)
        if run_folder.latest is None:
            tensors = BiasModel.fit(train).tensors()
            shards = {name: TensorShards.of(tensor) for name, tensor in tensors.items()}
            with Checkpointer(run_folder.checkpoints) as checkpointer:
                checkpointer.save(shards, Position(), config_files=run_folder.config_files)


def train_network(config: TrainRankerConfig, train: EncodedRequests, worker: Worker) -> None:
    """Open, shard, fit."""
    vectors = ItemVectors.open(config.vectors) if config.vectors else None
    source = vector_source(vectors, config.vector_storage, worker) if vectors else None
    spec = config.spec(train, vectors)
    check_room(spec)

    torch.manual_seed(config.seed)
    model = Ranker(spec)
    if model.network.make is not None:
        model.network.make.load_state_dict(make_weights(config))
    if model.network.effects is not None and vectors is not None:
        model.network.effects.find_directions(vectors)
    compile_network(config.compile, model.network, worker.device)
    asked, lengths = read_tables(config.tables), spec.mean_lengths
    options = TableOptions(asked, config.communication, config.plan, lengths)
    distributed = distribute(model, worker, config.optimizer(), config.seed, options)
    clear_effects(distributed)
    with RunFolder.create(config.run_dir, config, worker, config.resume) as run_folder:
        is_crosswise = config.make and TrainedMake.open(config.make).has_folds_of(train)
        write_ranker(run_folder, config.method, train, vectors, spec, bool(is_crosswise))
        distributed.save_plan(run_folder.path)
        make = frozen_make(model, vectors, config.vector_storage, worker)
        make_of_train = make.of_training() if make and is_crosswise else make
        frozen = config.run_dir / CODEBOOKS
        codebooks = Codebooks.load(frozen) if spec.has("codes") else None

        def batches(data: EncodedRequests) -> RequestLoader:
            said = make_of_train if data.split == "train" else make
            items = data.items
            if codebooks:
                assert vectors is not None  # codes are of vectors
                items = with_codes(items, vectors, codebooks)
            collator = collator_for_ranker(spec, items, source, config.max_behaviours, said)
            attended = attended_behaviours(spec, config.max_behaviours)
            return learning_batches(data, collator, attended, config, source, worker)

        test = batches(EncodedRequests(train.folder, "test")) if config.test_auc else None
        learned = batches(train)
        finish = partial(fit_effects, distributed, learned)
        fit(distributed, learned, run_folder, config, test, finish)


def follow_requests(config: TrainRankerConfig, worker: Worker) -> None:
    """Go on with a run, on requests as they arrive."""
    reads = reads_of(config.data, config.encoded, config.vectors, config.follow, config.items)
    check_run_dir(config.run_dir, config.resume, [*reads, config.start_from])
    trained = gone_on_with(config.run_dir, config)
    ranker = Ranker(spec_from_json(trained.model["spec"]))
    compile_network(config.compile, ranker.network, worker.device)
    encoder = encoder_of(trained, config.items or trained.items)
    source = source_of(trained, config)
    vectors = FollowedVectors.open(trained, config.vectors, VECTORS_S)
    lengths = ranker.network.spec.mean_lengths
    options = replace(trained.tables, communication=config.communication, mean_lengths=lengths)
    distributed = distribute(ranker, worker, config.optimizer(), config.seed, options)
    batches = WindowBatches(
        ranker,
        encoder,
        vectors.latest if vectors else None,
        trained.codebooks,
        config.max_behaviours,
        config,
        worker,
    )
    with (
        RunFolder.create(config.run_dir, config, worker, config.resume) as run_folder,
        vectors or nullcontext(),
    ):
        write_description(run_folder, trained)
        distributed.save_plan(run_folder.path)
        follow(distributed, batches, source, trained, run_folder, config)


def make_weights(config: TrainRankerConfig) -> dict[str, torch.Tensor]:
    """MAKE's, as the run that is resumed has frozen them, else as its own run left them."""
    saved = list_checkpoints(config.run_dir / CHECKPOINTS) if config.resume else []
    if saved:
        return read_checkpoint(saved[-1].folder, "model.network.make.")
    assert config.make is not None  # a method that holds MAKE is given one
    return TrainedMake.open(config.make).weights()


if __name__ == "__main__":
    sys.exit(run(main))
