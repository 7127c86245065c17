"""One vector an item, from an encoder.

python -m apps.embed_items --data DIR --encoder ENCODER --run_dir DIR
torchrun --nproc-per-node 2 -m apps.embed_items --data market --run_dir vectors
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.content.images import MAX_IMAGE_PIXELS
from torchrec_mm.data.content.item_stream import ItemStream
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, on_first_rank, process_group

if TYPE_CHECKING:  # the encoders' libraries are slow to import
    from torchrec_mm.pretraining.embed.vector_run import VectorMaker
    from torchrec_mm.pretraining.encoder.encoder import EncoderSpec

OFF_THE_SHELF, RANDOM = "off-the-shelf", "random"
VECTOR_WIDTH = 128  # of each modality, the random control's too
WORK_FLAGS = ("dtype", "max_image_pixels", "precision", "batch_size")  # the vectors depend on


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Embed all items of data/items/ that have the wanted content; write item vectors.

    Killed at any time, the same command goes on, on any number of processes: finished parts wait
    in RUN_DIR.parts/.
    """

    data: Path
    """folder that holds items/"""
    run_dir: Path
    """folder of item vectors to create"""
    encoder: str = OFF_THE_SHELF
    """a run folder of apps.pretrain, off-the-shelf (no training; its vectors are fitted to these
    items, so new items need all embedded again), or random (the control: unit vectors without
    meaning for the same items)"""
    modality: Literal["image", "text", "fused"] = "fused"
    """image or text: 128 wide; fused: both, weighed by the encoder's gate, 256 wide; an item that
    lacks one has the other's vector there"""
    dtype: Literal["int8", "float32"] = "int8"
    """how vectors are stored; int8 is trunc(127 * value)"""
    image_encoder: str | None = None
    """with off-the-shelf only: as in apps.pretrain, default efficientnet-lite0"""
    text_encoder: str | None = None
    """with off-the-shelf only: as in apps.pretrain, default all-minilm-l6-v2"""
    image_size: int | None = None
    """with off-the-shelf only: height and width of resized pictures in pixels, default 64"""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """a picture with more pixels counts as corrupt and is not decoded"""
    corrupt_share: float = 0.01
    """of the pictures, that may be impossible to decode; their items have the title alone"""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """of the encoder's matrix products"""
    batch_size: int = 64
    """items encoded at once on one process"""
    num_workers: int | None = None
    """threads of each process that decode pictures and make tokens, by default its share of the
    cores; ahead of an encoder on a GPU, in turns with one on the CPU"""
    seed: int = 0
    """of the random control"""

    def __post_init__(self) -> None:
        """Refuse values out of range, and flags that the encoder would not heed."""
        check_fields(self, lambda x: x is None or x >= 32, "at least 32", "image_size")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "num_workers")
        check_fields(self, lambda x: x >= 1, "at least 1", "max_image_pixels", "batch_size")
        check_fields(self, lambda x: x >= 0, "at least 0", "seed")
        check_fields(self, lambda x: 0 <= x <= 1, "in [0, 1]", "corrupt_share")
        if self.encoder != OFF_THE_SHELF:
            for name in ("image_encoder", "text_encoder", "image_size"):
                if getattr(self, name) is not None:
                    rule = f"{name} must be left out unless --encoder is off-the-shelf"
                    raise InputError(f"{rule}, got {getattr(self, name)} with {self.encoder}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is read of the items."""
        return ("image", "text") if self.modality == "fused" else (self.modality,)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the vectors and say how many items have one."""
    config = parse(EmbedConfig, argv)
    from torchrec_mm.pretraining.embed.vector_run import check_run_dir, make_item_vectors

    with process_group() as worker:
        on_first_rank(lambda: check_run_dir(config.run_dir, config.data / "items"))
        stream = ItemStream(config.data, config.modalities)
        make_maker = _random_items if config.encoder == RANDOM else _encoded_items
        maker = make_maker(config, stream, worker)
        work = {
            "items": stream.fingerprint,
            "encoder": maker.origin(),
            **{name: getattr(config, name) for name in WORK_FLAGS},
        }
        out, share = config.run_dir, config.corrupt_share
        pictures = make_item_vectors(out, stream, maker, work, share, worker)
        if worker.is_first:
            vectors = ItemVectors.open(config.run_dir)
            print(
                f"{len(vectors)} of {stream.num_items} items have a vector "
                f"({len(vectors) / stream.num_items:.2%}), {vectors.encoder} {vectors.modality}, "
                f"width {vectors.width}, in {config.run_dir}"
            )
            if pictures.corrupt:
                print(f"{pictures.corrupt} of {pictures.met} pictures could not be decoded")


def _random_items(config: EmbedConfig, stream: ItemStream, worker: Worker) -> "VectorMaker":
    from torchrec_mm.pretraining.embed.vector_makers import RandomVectors

    width = VECTOR_WIDTH * len(config.modalities)
    return RandomVectors(
        stream, modality=config.modality, dtype=config.dtype, width=width, seed=config.seed
    )


def _encoded_items(config: EmbedConfig, stream: ItemStream, worker: Worker) -> "VectorMaker":
    from torchrec_mm.pretraining.embed.head_sample import ItemEncoding
    from torchrec_mm.pretraining.embed.item_batches import BatchLoader, cores_of_process
    from torchrec_mm.pretraining.embed.vector_makers import EncoderVectors
    from torchrec_mm.pretraining.encoder.encoder_files import SavedEncoder, load_encoder
    from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder
    from torchrec_mm.pretraining.encoder.precision import Precision

    untrained = config.encoder == OFF_THE_SHELF
    if untrained:
        saved = SavedEncoder(OFF_THE_SHELF, build_item_encoder(_specs(config)))
    else:
        saved = load_encoder(Path(config.encoder), config.modalities)
    loader = BatchLoader(
        saved.encoder,
        max_image_pixels=config.max_image_pixels,
        batch_size=config.batch_size,
        num_threads=config.num_workers or cores_of_process(),
        device=worker.device,
    )
    precision = Precision(config.precision, worker.device)
    encoding = ItemEncoding(stream, saved.encoder, loader, precision, worker)
    return EncoderVectors(encoding, saved.name, config.modality, config.dtype, fit_heads=untrained)


def _specs(config: EmbedConfig) -> list["EncoderSpec"]:
    from torchrec_mm.pretraining.encoder.backbone_weights import (
        PACKAGED_IMAGE_ENCODER,
        PACKAGED_TEXT_ENCODER,
    )
    from torchrec_mm.pretraining.encoder.encoder import EncoderSpec

    backbones = {
        "image": config.image_encoder or PACKAGED_IMAGE_ENCODER,
        "text": config.text_encoder or PACKAGED_TEXT_ENCODER,
    }
    return [
        EncoderSpec(
            modality, backbones[modality], trainable_layers=0, image_size=config.image_size or 64
        )
        for modality in config.modalities
    ]


if __name__ == "__main__":
    sys.exit(run(main))
