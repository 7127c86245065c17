"""A step of phase one, from packed content to the line of metrics, against a bare loop.

Three sides take turns: a bare loop over batches in memory, ours without a memory bank, and ours
with a full one. All train every layer of the same encoders on the same batches.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F

from torchrec_mm.benchmarks.device.pretraining_bare import bare_steps, make_searches
from torchrec_mm.benchmarks.harness import BenchmarkConfig, alternate, comparison, in_fresh_process
from torchrec_mm.config import check_fields
from torchrec_mm.data.content.pack import pack
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.documents import read_text
from torchrec_mm.parallel.process_group import Worker, gather_rows, process_group
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.pairs.methods import training_pairs
from torchrec_mm.pretraining.pairs.pair_loader import LoaderSettings, PairLoader
from torchrec_mm.pretraining.scl.contrast import Contrast
from torchrec_mm.pretraining.scl.fit import fit
from torchrec_mm.pretraining.scl.fit_heads import reader_for
from torchrec_mm.pretraining.scl.scl import SCL
from torchrec_mm.pretraining.scl.settings import FitSettings, LossSettings, OptimizerSettings
from torchrec_mm.pretraining.scl.training import Trainer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import RunFolder

WARMUP_STEPS = 2
OPTIMIZER = OptimizerSettings(
    learning_rate=3e-3,
    backbone_learning_rate=1e-5,
    layer_decay=1.0,
    weight_decay=1e-4,
    warmup_steps=0,
    clip_norm=0.0,
)


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(BenchmarkConfig):
    """Seconds of a training step of SCL, pictures and texts, all layers trained.

    First ours without a memory bank against a bare loop (forward, backward, optimizer, momentum;
    data in memory), then ours with a full bank against ours without, then with it against the bare
    loop. Ours reads packed content with worker processes and writes a line of metrics each step.
    """

    batch_size: int = 128
    """Searches a step; each has one clicked item, not bought."""
    steps: int = 4
    """Steps that are timed, after a warm-up."""
    bank_slots: int = 196_800
    """Keys of a full memory bank, one bank for each of image, text and fused."""
    image_size: int = 64
    """Height and width that pictures are decoded to."""
    num_workers: int = 1
    """Processes that decode and tokenise ahead; ours alone needs them."""
    threads: int | None = None
    """Threads of the training process on all sides, PyTorch's own choice if null."""
    image_encoder: str = "efficientnet-lite0"
    """As in apps.pretrain."""
    text_encoder: str = "all-minilm-l6-v2"
    """As in apps.pretrain."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "steps", "bank_slots")
        check_fields(self, lambda x: x >= 2, "at least 2", "batch_size")
        check_fields(self, lambda x: x >= 32, "at least 32", "image_size")
        check_fields(self, lambda x: x >= 0, "at least 0", "num_workers")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "threads")


def compare(config: PretrainingConfig) -> Iterator[dict[str, Any]]:
    """Three comparisons from one round of runs, on one process."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        make_searches(root, config.batch_size * (config.steps + WARMUP_STEPS))
        pack(root, root / "packed")
        fresh = partial(in_fresh_process, threads=config.threads)
        sides = {
            "bare": lambda: fresh(bare, root, config),
            "ours": lambda: fresh(ours, root, config, 0),
            "ours with bank": lambda: fresh(ours, root, config, config.bank_slots),
        }
        results = alternate(sides, config.runs)
    seconds = {name: [run["seconds"] for run in runs] for name, runs in results.items()}
    more = {"batch_size": config.batch_size, "bank_slots": config.bank_slots}
    banked = "ours with bank"
    for measured, baseline in (("ours", "bare"), (banked, "ours"), (banked, "bare")):
        yield comparison(
            "pretraining",
            "s/step",
            seconds[measured],
            seconds[baseline],
            more_is_better=False,
            measured=measured,
            against=baseline,
            bank_mb=results[measured][0]["bank_mb"],
            **more,
        )


def ours(root: Path, config: PretrainingConfig, bank_slots: int) -> dict[str, Any]:
    """Median seconds of a step in the training loop, and MB of the image contrast's bank."""
    with process_group() as worker, TemporaryDirectory(dir=root) as folder:
        trainer, loader = built(root, config, bank_slots, worker)
        fill_banks(trainer.scl)
        run = RunFolder(Path(folder), worker)
        settings = FitSettings(epochs=1, corrupt_share=0.0, log_every_steps=1, hang_timeout_s=0.0)
        fit(trainer, loader, run, settings, Position(), lambda epoch: None)
        lines = map(json.loads, read_text(run.path / "metrics.jsonl").splitlines())
        seconds = [config.batch_size / line["pairs_per_s"] for line in lines]
        bank = trainer.scl.losses["image"].bank
        return {
            "seconds": median(seconds[WARMUP_STEPS:]),
            "bank_mb": sum(buffer.nbytes for buffer in bank.buffers()) / 1e6,
        }


def bare(root: Path, config: PretrainingConfig) -> dict[str, Any]:
    """Median seconds of a step of the bare loop, over the batches that ours reads."""
    with process_group() as worker:
        trainer, loader = built(root, config, 0, worker)
        batches = [batch.to(worker.device) for batch in loader.batches(1)]
        encoder = trainer.scl.encoder
        seconds = bare_steps(encoder, batches, OPTIMIZER.learning_rate)
        return {"seconds": median(seconds[WARMUP_STEPS:]), "bank_mb": 0.0}


def built(
    root: Path, config: PretrainingConfig, bank_slots: int, worker: Worker
) -> tuple[Trainer, PairLoader]:
    """SCL with all layers trained, and its batches."""
    backbones = (("image", config.image_encoder), ("text", config.text_encoder))
    encoder = build_item_encoder(
        EncoderSpec(modality, backbone, trainable_layers=-1, image_size=config.image_size)
        for modality, backbone in backbones
    )
    packed = PackedContent.open(root / "packed")
    reader = reader_for(encoder, packed, max_pixels=10_000_000, corrupt_share=0.0, worker=worker)
    searches = torch.arange(packed.num_searches).numpy()
    unseen = torch.zeros(packed.num_items, dtype=torch.bool).numpy()
    pairs = training_pairs(packed, "scl", ("image", "text"), searches, unseen)
    settings = LoaderSettings(batch_size=config.batch_size, seed=0, num_workers=config.num_workers)
    loader = PairLoader(pairs, reader, settings, rank=worker.rank, world_size=worker.world_size)
    precision = Precision("float32", worker.device)
    losses = LossSettings(
        momentum=0.99, bank_slots=bank_slots, in_batch=True, triplet_weight=1.0, margin=0.1
    )
    contrasts = [Contrast(space, space) for space in encoder.spaces]
    scl = SCL(encoder, contrasts, losses, gather_rows, precision)
    return Trainer(scl, OPTIMIZER, precision, worker), loader


def fill_banks(scl: SCL) -> None:
    """As if many steps had been done: random unit vectors of contents that never come."""
    generator = torch.Generator().manual_seed(0)
    for loss in scl.losses.values():
        slots, width = loss.bank.keys.shape
        keys = F.normalize(torch.randn(slots, width, generator=generator), dim=1)
        ids = torch.arange(slots)[:, None].expand(-1, 2) + (1 << 40)
        columns = (keys, ids, torch.ones(slots, dtype=torch.bool))
        loss.bank.enqueue(*(column.to(loss.bank.keys.device) for column in columns))
