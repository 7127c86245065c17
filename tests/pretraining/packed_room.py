"""Packed tiny content, and what a run makes of it, for tests of one module each."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch.distributed as dist
from torch import Tensor

from apps.pretrain import PretrainConfig
from tests.helpers.runs import Stopped
from tests.pretraining.tiny import write_search_data
from torchrec_mm.data.content.pack import pack
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.pairs.pair_loader import PairLoader
from torchrec_mm.pretraining.pairs.side_reader import SideReader
from torchrec_mm.pretraining.scl.fit_heads import fit_heads, reader_for
from torchrec_mm.pretraining.scl.training import Trainer

SIZE = 32


def packed_tiny(folder: Path, items: int = 40, searches: int = 120) -> PackedContent:
    """``tiny.write_search_data``, packed."""
    write_search_data(folder / "data", items, searches)
    pack(folder / "data", folder / "packed")
    return PackedContent.open(folder / "packed")


def config_of(folder: Path, packed: Path, encoders: Path, **more) -> PretrainConfig:
    """Flags of a small run; the tiny encoders are in ``encoders``/image and /text."""
    flags = {
        "run_dir": folder,
        "packed": packed,
        "image_encoder": str(encoders / "image"),
        "text_encoder": str(encoders / "text"),
        "image_size": SIZE,
        "batch_size": 16,
        "bank_slots": 40,
        "epochs": 2,
        "log_every_steps": 2,
        "num_workers": 0,
        "hang_timeout_s": 0.0,
    }
    return PretrainConfig(**(flags | more))


class SmallRun:
    """The parts of a run that apps.pretrain puts together."""

    def __init__(self, config: PretrainConfig, worker: Worker) -> None:
        from apps import pretrain

        self.config, self.worker = config, worker
        self.precision = Precision(config.precision, worker.device)
        self.packed = PackedContent.open(config.packed)
        self.encoder = pretrain.build_encoder(config).to(worker.device)
        self.reader: SideReader = reader_for(
            self.encoder,
            self.packed,
            max_pixels=config.max_image_pixels,
            corrupt_share=config.corrupt_share,
            worker=worker,
        )
        fit_heads(self.encoder, self.reader, worker)
        self.pairs, self.judge = pretrain.split(config, self.reader, self.precision, worker)
        settings = pretrain.loader_settings(config)
        self.loader = PairLoader(
            self.pairs, self.reader, settings, rank=worker.rank, world_size=worker.world_size
        )
        self.trainer: Trainer = pretrain.build_trainer(config, self.encoder, self.precision, worker)

    def steps(self, count: int, first: int = 0) -> list[Tensor]:
        """Figures of some steps, summed over ranks; the weights are trained."""
        total = self.config.epochs * self.loader.steps_per_epoch
        batches, summed = self.loader.batches(self.config.epochs, first), []
        for step in range(first, first + count):
            batch = next(batches).to(self.worker.device)
            figures, _ = self.trainer.step(batch, step, total)
            dist.all_reduce(figures)
            summed.append(figures)
        return summed


@contextmanager
def stopped_before(last: int) -> Iterator[None]:
    """The training in the block ends, and the block, where a step would begin, counted from 0."""
    make = Trainer.step

    def step(self, batch, step, total_steps):
        if step == last:
            raise Stopped
        return make(self, batch, step, total_steps)

    with mock.patch.object(Trainer, "step", step), pytest.raises(Stopped):
        yield


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of all that a checkpoint holds."""
    return {name: shards.parts[0][1].clone() for name, shards in trainer.shards().items()}
