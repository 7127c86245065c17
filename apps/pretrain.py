"""python -m apps.pretrain --data DIR --run_dir DIR: teach encoders from searches (phase one)."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchrec_mm.config import check_fields, parse, run, to_yaml
from torchrec_mm.data.images import MAX_IMAGE_PIXELS
from torchrec_mm.data.item_content import MODALITIES, read_item_content
from torchrec_mm.data.searches import read_searches
from torchrec_mm.parallel.process_group import Worker, process_group


@dataclass(frozen=True)
class PretrainConfig:
    """Train image and text encoders on searches, and judge them on held-out ones."""

    data: Path
    """folder that holds items/ and searches/"""
    run_dir: Path
    """folder to create: config, encoder, log, retrieval.json"""
    modality: Literal["both", "image", "text"] = "both"
    """which towers to train: query photo and item picture, query text and item title"""
    image_encoder: str = "efficientnet-lite0"
    """efficientnet-lite0 (packaged), a folder saved by timm, or a timm model with hub weights"""
    text_encoder: str = "all-minilm-l6-v2"
    """all-minilm-l6-v2 (packaged), or a folder saved by sentence-transformers"""
    image_size: int = 64
    """height and width in pixels that pictures are resized to, at least 32"""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """a picture with more pixels is refused before it is decoded"""
    trainable_layers: int = 0
    """last layers of each backbone trained along with the head; 0: features are computed once
    and only the head is trained, -1: all layers"""
    epochs: int = 5
    """passes over the training searches; 0 writes the off-the-shelf encoders"""
    batch_size: int = 256
    """searches a step over all processes together, a multiple of their number"""
    learning_rate: float = 3e-3
    """AdamW's peak step size of the head; falls to zero along a cosine"""
    backbone_learning_rate: float = 1e-5
    """AdamW's peak step size of the trainable layers"""
    weight_decay: float = 1e-4
    """AdamW's decoupled weight decay of matrices"""
    momentum: float = 0.99
    """of the momentum encoder, in [0, 1)"""
    bank_slots: int = 196_800
    """keys in each tower's memory bank (0.5 KB a key); 0: in-batch negatives only"""
    triplet_weight: float = 1.0
    """weight of the triplet loss on clicked-not-bought items; 0 leaves it out"""
    margin: float = 0.1
    """margin of the triplet loss, a cosine distance in [0, 2]"""
    holdout: float = 0.1
    """share of the searches, the latest ones, held out for retrieval.json, in (0, 1)"""
    seed: int = 0
    """of shuffling"""
    resume: bool = False
    """continue a run in run_dir from its last finished epoch; start it if there is none"""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_fields(self, lambda x: x >= 32, "at least 32", "image_size")
        check_fields(self, lambda x: x > 0, "above 0", "max_image_pixels")
        check_fields(self, lambda x: x >= 2, "at least 2", "batch_size")
        check_fields(self, lambda x: x >= 0, "at least 0", "epochs", "bank_slots", "seed")
        check_fields(self, lambda x: 0 <= x < 1, "in [0, 1)", "momentum")
        check_fields(self, lambda x: 0 <= x <= 2, "in [0, 2]", "margin")
        check_fields(self, lambda x: 0 < x < 1, "in (0, 1)", "holdout")
        steps = ("learning_rate", "backbone_learning_rate", "weight_decay", "triplet_weight")
        check_fields(self, lambda x: 0 <= x < float("inf"), "finite and at least 0", *steps)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The towers to train."""
        return MODALITIES if self.modality == "both" else (self.modality,)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, or write the off-the-shelf encoders, and say how good they are."""
    config = parse(PretrainConfig, argv)
    with process_group() as worker:
        report = _pretrain(config, worker)
        if worker.is_first:
            print(
                f"{report['encoder']}: recall@10 {_figure(report)} of {report['searches']} "
                f"held-out searches among {report['items']} items "
                f"(off-the-shelf {_figure(report['off-the-shelf'])}), written to {config.run_dir}"
            )


def _pretrain(config: PretrainConfig, worker: Worker) -> dict:
    from torchrec_mm.pretraining.encoder import EncoderSpec, build_encoder
    from torchrec_mm.pretraining.modality import ModalityTask
    from torchrec_mm.pretraining.run import PretrainingRun
    from torchrec_mm.pretraining.run_folder import check_startable
    from torchrec_mm.pretraining.tower import LossSettings
    from torchrec_mm.pretraining.training import TrainSettings

    config_yaml = to_yaml(config)
    check_startable(config.run_dir, config_yaml, config.resume)
    limits = {"image_size": config.image_size, "max_image_pixels": config.max_image_pixels}
    items = read_item_content(config.data, config.modalities, **limits)
    searches = read_searches(config.data, items, **limits)
    train_rows, held_out = searches.split(config.holdout)
    backbones = {"image": config.image_encoder, "text": config.text_encoder}
    specs = {
        modality: EncoderSpec(
            modality, backbones[modality], config.trainable_layers, config.image_size
        )
        for modality in config.modalities
    }
    tasks = {
        modality: ModalityTask(
            modality,
            build_encoder(spec),
            items,
            searches,
            train_rows,
            encode_batch_size=64,
            worker=worker,
        )
        for modality, spec in specs.items()
    }
    settings = TrainSettings(
        config.epochs,
        config.batch_size,
        config.learning_rate,
        config.backbone_learning_rate,
        config.weight_decay,
        config.seed,
        LossSettings(config.momentum, config.bank_slots, config.triplet_weight, config.margin),
    )
    run_ = PretrainingRun(config.run_dir, tasks, specs, searches, held_out, settings, worker)
    return run_.run(config_yaml)


def _figure(report: dict) -> str:
    return f"{report['recall@10']:.3f}" if "recall@10" in report else "unknown"


if __name__ == "__main__":
    sys.exit(run(main))
