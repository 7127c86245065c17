"""Teach encoders from searches: phase one.

python -m apps.pretrain --data DIR --run_dir DIR
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.content.images import MAX_IMAGE_PIXELS
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.cuda.modes import use_tf32
from torchrec_mm.parallel.process_group import Worker, gather_rows, process_group
from torchrec_mm.pretraining.encoder.settings import EncoderSettings
from torchrec_mm.pretraining.scl.settings import (
    ITEMS_PER_BANK_SLOT,
    MAX_BANK_SLOTS,
    FitSettings,
    LossSettings,
    OptimizerSettings,
)

if TYPE_CHECKING:
    from torchrec_mm.data.content.packed import PackedContent
    from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
    from torchrec_mm.pretraining.encoder.precision import Precision
    from torchrec_mm.pretraining.judge.judge import Judge
    from torchrec_mm.pretraining.pairs.pair_loader import LoaderSettings
    from torchrec_mm.pretraining.pairs.pairs import Pairs
    from torchrec_mm.pretraining.pairs.side_reader import SideReader
    from torchrec_mm.pretraining.scl.training import Trainer

MODALITIES = ("image", "text")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(EncoderSettings, OptimizerSettings, LossSettings, FitSettings):
    """Train image and text encoders on searches, and judge them on held-out ones."""

    run_dir: Path
    """folder to create: config, encoder of the best epoch by MRR, metrics.jsonl, checkpoints,
    retrieval.json"""
    data: Path | None = None
    """folder that holds items/ and searches/, packed on the way; either this or --packed"""
    packed: Path | None = None
    """what apps.pack made of them, once for many runs"""
    method: Literal["scl", "clip-e", "co-click"] = "scl"
    """pairs to learn from: a search and what was bought; the title and the picture of one item;
    two items clicked in one search"""
    modality: Literal["auto", "both", "image", "text"] = "auto"
    """what is trained: query photo and item picture, query text and item title; auto: what items/
    has a column of, or --packed holds"""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """a picture with more pixels counts as one that cannot be decoded; it is not tried"""
    batch_size: int = 256
    """pairs a step over all processes together, a multiple of their number"""
    holdout: float = 0.1
    """share held out for retrieval.json, in (0, 1)"""
    holdout_by: Literal["time", "item"] = "time"
    """the latest searches, or all those of some items: of equal titles or pictures all or none"""
    judged_searches: int = 20_000
    """held-out searches that retrieval.json is computed on, evenly spread, at most"""
    num_workers: int = 2
    """processes that decode and tokenise ahead, on each rank; cached features need none"""

    def __post_init__(self) -> None:
        """Refuse values out of range, and flags that would not be heeded."""
        if (self.data is None) == (self.packed is None):
            rule = "either data or packed must be given"
            raise InputError(f"{rule}, got {self.data} and {self.packed}")
        check_fields(self, lambda x: x >= 2, "at least 2", "batch_size")
        check_fields(self, lambda x: x >= 1, "at least 1", "max_image_pixels", "judged_searches")
        check_fields(self, lambda x: x >= 0, "at least 0", "num_workers")
        check_fields(self, lambda x: 0 < x < 1, "in (0, 1)", "holdout")
        for part in (EncoderSettings, OptimizerSettings, LossSettings, FitSettings):
            part.__post_init__(self)
        if self.method == "clip-e" and len(self.modalities) < 2:
            raise InputError(f"modality must be both for clip-e, got {self.modality}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is trained; before "auto" is settled, both."""
        return (self.modality,) if self.modality in MODALITIES else MODALITIES

    @property
    def encoder_name(self) -> str:
        """What the table of encoders calls the result."""
        if self.epochs == 0:
            return "off-the-shelf"
        left_out = {
            "-no-bank": self.bank_slots == 0,
            "-no-in-batch": not self.in_batch,
            "-no-triplet": self.triplet_weight == 0,
        }
        if self.method != "scl":
            return self.method
        return "scl" + "".join(name for name, without in left_out.items() if without)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or write the off-the-shelf encoders, and say how good they are."""
    config = parse(PretrainConfig, argv)
    with process_group() as worker:
        use_tf32(config.tf32, worker.device)
        report = pretrain(config, worker)
        if worker.is_first:
            print(
                f"{report['encoder']}: recall@10 {_figure(report)} of {report['searches']} "
                f"held-out searches among {report['items']} items "
                f"(off-the-shelf {_figure(report['off-the-shelf'])}), epoch {report['epoch']} of "
                f"{config.epochs}, written to {config.run_dir}"
            )


def pretrain(config: PretrainConfig, worker: Worker) -> dict[str, Any]:
    """The run; returns what it wrote to retrieval.json. Collective."""
    from torchrec_mm.pretraining.pairs.pack_or_open import has_begun, packed_content
    from torchrec_mm.runs.run_folder import check_run_dir

    data = (config.data / "items", config.data / "searches") if config.data else ()
    check_run_dir(config.run_dir, config.resume, (*data, config.packed))
    goes_on = config.resume and has_begun(config.run_dir)
    modalities = None if config.modality == "auto" else config.modalities
    with packed_content(
        config.data, config.packed, config.run_dir, worker, modalities, goes_on
    ) as packed:
        return train_encoder(settled(config, packed), packed, worker)


def settled(config: PretrainConfig, packed: "PackedContent") -> PretrainConfig:
    """The config with what follows from the content: its modalities, and a bank of its size."""
    modality: Any = config.modality  # one of the words, which strings are not for mypy
    slots = config.bank_slots
    if modality == "auto":
        held = [*packed.by_modality]
        modality = "both" if len(held) > 1 else held[0]
    if slots is None:
        slots = min(MAX_BANK_SLOTS, packed.num_items // ITEMS_PER_BANK_SLOT)
    return replace(config, modality=modality, bank_slots=slots)


def train_encoder(
    config: PretrainConfig, packed: "PackedContent", worker: Worker
) -> dict[str, Any]:
    """Build, train, judge. Collective."""
    from torchrec_mm.pretraining.encoder.precision import Precision
    from torchrec_mm.pretraining.judge.judge import Results
    from torchrec_mm.pretraining.pairs.pair_loader import PairLoader
    from torchrec_mm.pretraining.scl.fit import fit, restore
    from torchrec_mm.pretraining.scl.fit_heads import fit_heads, reader_for
    from torchrec_mm.runs.run_folder import RunFolder

    precision = Precision(config.precision, worker.device)
    encoder = build_encoder(config).to(worker.device)
    with RunFolder.create(config.run_dir, config, worker, config.resume) as run_folder:
        run_folder.write_model({"kind": "encoder", "content": packed.fingerprint})
        with run_folder.taken_back():  # features of a large catalogue take hours
            reader = reader_for(
                encoder,
                packed,
                max_pixels=config.max_image_pixels,
                corrupt_share=config.corrupt_share,
                worker=worker,
            )
            fit_heads(encoder, reader, worker)
            pairs, judge = split(config, reader, precision, worker)
            loader = PairLoader(
                pairs,
                reader,
                loader_settings(config),
                rank=worker.rank,
                world_size=worker.world_size,
                pin_memory=worker.device.type == "cuda",
            )
        trainer = build_trainer(config, encoder, precision, worker)
        start = restore(run_folder, trainer)
        run_folder.drop_records_after(start)
        # Of trained backbones all items would have to be encoded once more for it; without
        # momentum it is the encoder itself.
        is_another = config.momentum and not config.trainable_layers
        slow = trainer.scl.momentum_encoder if is_another else None
        results = Results(run_folder, encoder, judge, config.encoder_name, slow)
        results.begin(start)
        fit(trainer, loader, run_folder, config, start, results.after_epoch)
        results.warn_if_below()
    return results.report


def build_encoder(config: PretrainConfig) -> "ItemEncoder":
    """Backbones with their weights, heads that are not fitted yet."""
    from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
    from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder

    backbones = {"image": config.image_encoder, "text": config.text_encoder}
    encoder = build_item_encoder(
        EncoderSpec(
            modality,
            backbones[modality],
            trainable_layers=config.trainable_layers,
            image_size=config.image_size,
            batch_norm=config.batch_norm,
            width=config.width,
        )
        for modality in config.modalities
    )
    if config.gradient_checkpointing:
        encoder.checkpoint_gradients()
    return encoder


def split(
    config: PretrainConfig, reader: "SideReader", precision: "Precision", worker: Worker
) -> tuple["Pairs", "Judge"]:
    """The pairs to train on, and what the encoder is judged by."""
    from torchrec_mm.pretraining.judge.judge import Judge, evenly_spread
    from torchrec_mm.pretraining.pairs.methods import training_pairs, unseen_items

    packed = reader.packed
    train, held_out = packed.split(config.holdout, config.holdout_by)
    unseen = unseen_items(packed, config.holdout, config.holdout_by)
    judge = Judge(
        reader,
        evenly_spread(held_out, config.judged_searches),
        unseen if unseen.any() else None,
        worker,
        precision,
        workers_of(config),
    )
    return training_pairs(packed, config.method, config.modalities, train, unseen), judge


def loader_settings(config: PretrainConfig) -> "LoaderSettings":
    """How pairs are read."""
    from torchrec_mm.pretraining.pairs.pair_loader import LoaderSettings

    return LoaderSettings(
        batch_size=config.batch_size,
        seed=config.seed,
        hard=config.triplet_weight > 0,
        augment=config.augment,
        num_workers=workers_of(config),
    )


def workers_of(config: PretrainConfig) -> int:
    """Processes that read ahead: cached features are read faster than they could be sent."""
    return config.num_workers if config.trainable_layers else 0


def build_trainer(
    config: PretrainConfig, encoder: "ItemEncoder", precision: "Precision", worker: Worker
) -> "Trainer":
    """SCL around the encoder, and its optimizer."""
    from torchrec_mm.pretraining.scl.contrast import Contrast
    from torchrec_mm.pretraining.scl.scl import SCL
    from torchrec_mm.pretraining.scl.training import Trainer

    contrasts = [Contrast(space, space) for space in encoder.spaces]
    if config.method == "clip-e":
        contrasts = [Contrast("text", "image"), Contrast("image", "text")]
    scl = SCL(encoder, contrasts, config, gather_rows, precision)
    if config.compile:
        scl.encoder.compile_backbones()
        scl.momentum_encoder.compile_backbones()
    return Trainer(scl, config, precision, worker)


def _figure(report: dict[str, Any]) -> str:
    value = report["recall@10"]
    return "unknown" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(run(main))
