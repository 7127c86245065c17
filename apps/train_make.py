"""Phase two, step one: train MAKE on clicks, from item vectors alone, for several epochs.

Crosswise: a ranker meets MAKE on the clicks that MAKE was trained on, and would believe what that
knows by heart. So there is one MAKE for each fold of requests, which learns from the others.

python -m apps.train_make --data market --vectors vectors --run_dir runs/make
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.documents import read_yaml
from torchrec_mm.files import beside
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.cuda.modes import use_tf32
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group, reserve_reader_core
from torchrec_mm.parallel.sharded_vectors import vector_source
from torchrec_mm.parallel.sharding import OptimizerSettings, distribute
from torchrec_mm.ranking.collators import collator_for_make
from torchrec_mm.ranking.make import MakeRanker, MakeSpec, make_spec_to_json
from torchrec_mm.runs.run_folder import RunFolder, check_run_dir
from torchrec_mm.train.encode_or_open import check_source, encoded_requests, reads_of
from torchrec_mm.train.fit import fit
from torchrec_mm.train.rates import with_learning_rate
from torchrec_mm.train.settings import TrainSettings, learning_batches

RATE_PER_REQUEST = 0.003 / 128


@dataclass(frozen=True, kw_only=True)
class TrainMakeConfig(TrainSettings):
    """Train MAKE, the click model that sees nothing but item vectors."""

    vectors: Path
    """Folder of item vectors."""
    run_dir: Path
    """Folder to create."""
    data: Path | None = None
    """Folder that holds items/ and requests/train; they are encoded first."""
    encoded: Path | None = None
    """Encoded data set of apps.encode, instead of data."""
    epochs: int = 5
    """Passes over requests/train."""
    batch_requests: int = 128
    """Most requests in a global batch, over all ranks; fewer where padding them takes too much."""
    learning_rate: float | None = None
    """Of Adam; null: 0.003 for each 128 of batch_requests, 0.012 from 512 on."""
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
    folds: int = 2
    """MAKEs trained side by side, each on the requests outside its fold; 1: one MAKE on all."""

    def __post_init__(self) -> None:
        check_source(self.data, self.encoded)
        super().__post_init__()
        counts = ("width", "hidden", "max_behaviours", "folds")
        check_fields(self, lambda x: x >= 1, "at least 1", *counts)
        check_fields(self, lambda x: x >= 0, "at least 0", "weight_decay")
        check_fields(self, lambda x: x is None or x > 0, "above 0", "learning_rate")
        check_fields(self, lambda x: 0 <= x < 1, "in [0, 1)", "dropout")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = as_begun(with_learning_rate(parse(TrainMakeConfig, argv), RATE_PER_REQUEST))
    with suppress_library_warnings(), process_group() as worker, reserve_reader_core():
        use_tf32(config.tf32, worker.device)
        reads = reads_of(config.data, config.encoded, config.vectors)
        check_run_dir(config.run_dir, config.resume, reads)
        with encoded_requests(
            config.data,
            config.encoded,
            beside(config.run_dir, "encoded"),
            worker,
            config.splits,
            max_behaviours=config.max_behaviours,
            reuse=config.resume,
        ) as encoded:
            train(config, encoded, worker)


def as_begun(config: TrainMakeConfig) -> TrainMakeConfig:
    """A run that began before there were folds goes on without them."""
    begun = config.run_dir / "config.yaml"
    is_older = config.resume and begun.is_file() and "folds" not in read_yaml(begun)
    return replace(config, folds=1) if is_older else config


def train(config: TrainMakeConfig, encoded: Path, worker: Worker) -> None:
    """Open, replicate, fit."""
    vectors = ItemVectors.open(config.vectors)
    source = vector_source(vectors, config.vector_storage, worker)

    def batches(split: str) -> RequestLoader:
        data = EncodedRequests(encoded, split)
        folds = config.folds if split == "train" else 1
        most, events = config.max_behaviours, data.sequences
        collator = collator_for_make(data.items, source, most, folds, events)
        attended = most * (1 + len(events))
        return learning_batches(data, collator, attended, config, source, worker)

    torch.manual_seed(config.seed)
    spec = MakeSpec(
        vector_width=vectors.width,
        width=config.width,
        hidden=config.hidden,
        dropout=config.dropout,
        folds=config.folds,
        sequences=EncodedRequests(encoded, "train").sequences,
    )
    rate, decay = config.learning_rate, config.weight_decay
    assert rate is not None  # see main
    optimizer = OptimizerSettings(learning_rate=rate, weight_decay=decay)
    distributed = distribute(MakeRanker(spec), worker, optimizer, config.seed)
    test = batches("test") if config.test_auc else None
    train = batches("train")
    model = {
        "kind": "make",
        "vectors": vectors.origin,
        "train": EncodedRequests(encoded, "train").sizes,
        "spec": make_spec_to_json(spec),
    }
    with RunFolder.create(config.run_dir, config, worker, config.resume) as run_folder:
        run_folder.write_model(model)
        fit(distributed, train, run_folder, config, test)


if __name__ == "__main__":
    sys.exit(run(main))
