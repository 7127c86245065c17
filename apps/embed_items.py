"""python -m apps.embed_items --data DIR --encoder ENCODER --run_dir DIR: one vector an item."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from torchrec_mm.config import parse, run
from torchrec_mm.data.images import MAX_IMAGE_PIXELS
from torchrec_mm.data.item_content import MODALITIES, ItemContent, read_item_content
from torchrec_mm.errors import InputError
from torchrec_mm.files import refuse_existing
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.parallel.process_group import Worker, process_group

OFF_THE_SHELF, RANDOM = "off-the-shelf", "random"
ENCODE_BATCH_SIZE = 64
VECTOR_WIDTH = 128  # of each modality, the random control's too


@dataclass(frozen=True)
class EmbedConfig:
    """Embed all items of data/items/ that have the wanted content; write item vectors."""

    data: Path
    """folder that holds items/"""
    run_dir: Path
    """folder of item vectors to create"""
    encoder: str = OFF_THE_SHELF
    """a run folder of apps.pretrain, off-the-shelf (no training), or random (the control: unit
    vectors without meaning for the same items)"""
    modality: Literal["image", "text", "fused"] = "fused"
    """image or text: 128 wide; fused: both side by side, 256 wide, cosines average"""
    dtype: Literal["int8", "float32"] = "int8"
    """how vectors are stored; int8 is trunc(127 * value)"""
    image_encoder: str | None = None
    """with off-the-shelf only: as in apps.pretrain, default efficientnet-lite0"""
    text_encoder: str | None = None
    """with off-the-shelf only: as in apps.pretrain, default all-minilm-l6-v2"""
    image_size: int | None = None
    """with off-the-shelf only: height and width of resized pictures in pixels, default 64"""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """a picture with more pixels is refused before it is decoded"""
    seed: int = 0
    """of the random control"""

    def __post_init__(self) -> None:
        """Refuse values out of range, and flags that the encoder would not heed."""
        for name, least in (("image_size", 32), ("max_image_pixels", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        if self.encoder != OFF_THE_SHELF:
            for name in ("image_encoder", "text_encoder", "image_size"):
                if getattr(self, name) is not None:
                    raise InputError(
                        f"{name} must be left out unless --encoder is off-the-shelf, "
                        f"got {getattr(self, name)} with {self.encoder}"
                    )

    @property
    def modalities(self) -> list[str]:
        """What is read of the items."""
        return list(MODALITIES) if self.modality == "fused" else [self.modality]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the vectors and say how many items have one."""
    config = parse(EmbedConfig, argv)
    refuse_existing(config.run_dir)
    with process_group() as worker:
        item_ids, vectors, present, encoder = _embed(config, worker)
        if worker.is_first:
            write_item_vectors(
                config.run_dir,
                item_ids[present],
                vectors[present],
                dtype=config.dtype,
                encoder=encoder,
                modality=config.modality,
            )
            print(
                f"{present.sum()} of {len(present)} items have a vector ({present.mean():.2%}), "
                f"{encoder} {config.modality}, width {vectors.shape[1]}, in {config.run_dir}"
            )


def _embed(config: EmbedConfig, worker: Worker) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Ids (N,), vectors (N, D), present (N,) bool, and the name of the encoder."""
    if config.encoder == RANDOM:
        items = _items(config, image_size=64)
        return items.item_ids, *_random(config, items), RANDOM
    from torchrec_mm.pretraining.embedding import fuse, item_vectors, off_the_shelf_vectors
    from torchrec_mm.pretraining.encoder_files import load_encoders

    if config.encoder == OFF_THE_SHELF:
        encoders, embed = _off_the_shelf(config), off_the_shelf_vectors
    else:
        encoders, embed = load_encoders(Path(config.encoder), config.modalities), item_vectors
    items = _items(config, next(iter(encoders.specs.values())).image_size)
    parts = []
    for modality in config.modalities:
        encoder = encoders.encoders[modality].to(worker.device)
        content = items.by_modality[modality]
        label = f"{modality}: embed items"
        vectors, present = embed(encoder, content, ENCODE_BATCH_SIZE, worker, label)
        parts.append((vectors.cpu().numpy(), present))
    return items.item_ids, *fuse(parts), encoders.name


def _items(config: EmbedConfig, image_size: int) -> ItemContent:
    return read_item_content(config.data, config.modalities, image_size, config.max_image_pixels)


def _off_the_shelf(config: EmbedConfig):
    from torchrec_mm.pretraining.backbones import PACKAGED_IMAGE_ENCODER, PACKAGED_TEXT_ENCODER
    from torchrec_mm.pretraining.encoder import EncoderSpec, build_encoder
    from torchrec_mm.pretraining.encoder_files import EncoderSet

    backbones = {
        "image": config.image_encoder or PACKAGED_IMAGE_ENCODER,
        "text": config.text_encoder or PACKAGED_TEXT_ENCODER,
    }
    specs = {
        modality: EncoderSpec(modality, backbones[modality], 0, config.image_size or 64)
        for modality in config.modalities
    }
    encoders = {modality: build_encoder(spec) for modality, spec in specs.items()}
    return EncoderSet(OFF_THE_SHELF, specs, encoders)


def _random(config: EmbedConfig, items: ItemContent) -> tuple[np.ndarray, np.ndarray]:
    width = VECTOR_WIDTH * len(config.modalities)
    present = np.logical_or.reduce([content.present for content in items.by_modality.values()])
    vectors = np.random.default_rng(config.seed).standard_normal((len(items), width))
    return vectors.astype(np.float32), present


if __name__ == "__main__":
    sys.exit(run(main))
