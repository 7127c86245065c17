"""One vector an item, from an encoder.

python -m apps.embed_items --data DIR --encoder ENCODER --run_dir DIR
torchrun --nproc-per-node 2 -m apps.embed_items --data market --run_dir vectors
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.content.images import MAX_IMAGE_PIXELS
from torchrec_mm.data.content.item_stream import ItemStream
from torchrec_mm.data.content.pack import modalities_in
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, on_first_rank, process_group

if TYPE_CHECKING:  # the encoders' libraries are slow to import
    from torchrec_mm.pretraining.embed.vector_run import Items, VectorMaker
    from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
    from torchrec_mm.pretraining.encoder.encoder_files import SavedEncoder

OFF_THE_SHELF, RANDOM = "off-the-shelf", "random"
VECTOR_WIDTH = 128  # of each modality, where no encoder was trained
WORK_FLAGS = ("dtype", "max_image_pixels", "precision", "batch_size")  # the vectors depend on


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Embed all items that have the wanted content; write item vectors.

    Killed at any time, the same command goes on, on any number of processes: finished parts wait
    in RUN_DIR.parts/.
    """

    run_dir: Path
    """folder of item vectors to create"""
    data: Path | None = None
    """folder that holds items/; either this or --packed"""
    packed: Path | None = None
    """what apps.pack made of them: features of frozen backbones that apps.pretrain kept there are
    read, and kept there where they are not yet"""
    encoder: str = OFF_THE_SHELF
    """a run folder of apps.pretrain, off-the-shelf (no training; its vectors are fitted to these
    items, so new items need all embedded again), or random (the control: unit vectors without
    meaning for the same items)"""
    modality: Literal["image", "text", "fused"] | None = None
    """by default what the encoder's run trained, or without a run what items/ has a column of, or
    --packed holds; fused: both, weighed by the encoder's gate, as wide as both together; an item
    that lacks one has the other's vector there"""
    dtype: Literal["int8", "float32"] = "int8"
    """how vectors are stored; int8 is trunc(127 * value)"""
    width: int | None = None
    """with off-the-shelf or random only: numbers in a vector of one modality, default 128, the
    principal components; as many as a backbone has features, or more, are just those"""
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
    cores; ahead of an encoder on a GPU, in turns with one on the CPU; with data only"""
    seed: int = 0
    """of the random control"""

    def __post_init__(self) -> None:
        """Refuse values out of range, and flags that would not be heeded."""
        if (self.data is None) == (self.packed is None):
            rule = "either data or packed must be given"
            raise InputError(f"{rule}, got {self.data} and {self.packed}")
        if self.packed and self.encoder == RANDOM:
            raise InputError(f"packed must be left out with --encoder random, got {self.packed}")
        if self.packed and self.num_workers is not None:
            raise InputError(f"num_workers must be left out with packed, got {self.num_workers}")
        check_fields(self, lambda x: x is None or x >= 32, "at least 32", "image_size")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "num_workers")
        check_fields(self, lambda x: x >= 1, "at least 1", "max_image_pixels", "batch_size")
        check_fields(self, lambda x: x >= 0, "at least 0", "seed")
        check_fields(self, lambda x: 0 <= x <= 1, "in [0, 1]", "corrupt_share")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "width")
        if self.width is not None and self.encoder not in (OFF_THE_SHELF, RANDOM):
            raise InputError(f"width must be left out with an encoder's run, got {self.width}")
        if self.encoder != OFF_THE_SHELF:
            for name in ("image_encoder", "text_encoder", "image_size"):
                if getattr(self, name) is not None:
                    rule = f"{name} must be left out unless --encoder is off-the-shelf"
                    raise InputError(f"{rule}, got {getattr(self, name)} with {self.encoder}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """What is read of the items."""
        return ("image", "text") if self.space == "fused" else (self.space,)

    @property
    def space(self) -> str:
        """Of the vectors."""
        assert self.modality is not None  # ``with_modality`` comes first
        return self.modality

    @property
    def source(self) -> Path:
        """The folder that is read."""
        return self.data / "items" if self.data else cast(Path, self.packed)

    @property
    def is_untrained(self) -> bool:
        """Whether heads are to be fitted to the items."""
        return self.encoder == OFF_THE_SHELF


def main(argv: Sequence[str] | None = None) -> None:
    """Write the vectors and say how many items have one."""
    config = parse(EmbedConfig, argv)
    from torchrec_mm.pretraining.embed.vector_run import check_run_dir, make_item_vectors

    with process_group() as worker:
        on_first_rank(lambda: check_run_dir(config.run_dir, config.source))
        config = with_modality(config)
        items, maker = (_packed_items if config.packed else _streamed_items)(config, worker)
        work = {
            "items": items.fingerprint,
            "encoder": maker.origin(),
            **{name: getattr(config, name) for name in WORK_FLAGS},
        }
        out, share = config.run_dir, config.corrupt_share
        pictures = make_item_vectors(out, items, maker, work, share, worker)
        if worker.is_first:
            vectors = ItemVectors.open(config.run_dir)
            print(
                f"{len(vectors)} of {items.num_items} items have a vector "
                f"({len(vectors) / items.num_items:.2%}), {vectors.encoder} {vectors.modality}, "
                f"width {vectors.width}, in {config.run_dir}"
            )
            if pictures.corrupt:
                print(f"{pictures.corrupt} of {pictures.met} pictures could not be decoded")


def with_modality(config: EmbedConfig) -> EmbedConfig:
    """The config with the modality that follows from encoder or items, where none is given."""
    if config.modality is not None:
        return config
    if config.encoder not in (OFF_THE_SHELF, RANDOM):
        from torchrec_mm.pretraining.encoder.encoder_files import trained_modalities

        found = trained_modalities(Path(config.encoder))
    elif config.data:
        found = modalities_in(config.data)
    else:
        found = tuple(PackedContent.open(config.source).by_modality)
    only: Any = found[0] if len(found) == 1 else "fused"
    return replace(config, modality=only)


def _streamed_items(config: EmbedConfig, worker: Worker) -> tuple["Items", "VectorMaker"]:
    """Items of data, and their vectors: an encoder's, or the control's."""
    from torchrec_mm.pretraining.embed.vector_makers import RandomVectors

    assert config.data is not None  # or packed would be given
    stream = ItemStream(config.data, config.modalities)
    if config.encoder != RANDOM:
        return stream, _encoded_items(config, stream, worker)
    width = (config.width or VECTOR_WIDTH) * len(config.modalities)
    return stream, RandomVectors(
        stream, modality=config.space, dtype=config.dtype, width=width, seed=config.seed
    )


def _encoded_items(config: EmbedConfig, stream: ItemStream, worker: Worker) -> "VectorMaker":
    from torchrec_mm.pretraining.embed.head_sample import ItemEncoding
    from torchrec_mm.pretraining.embed.item_batches import BatchLoader, cores_of_process
    from torchrec_mm.pretraining.embed.vector_makers import EncoderVectors
    from torchrec_mm.pretraining.encoder.precision import Precision

    saved = _encoder(config)
    loader = BatchLoader(
        saved.encoder,
        max_image_pixels=config.max_image_pixels,
        batch_size=config.batch_size,
        num_threads=config.num_workers or cores_of_process(),
        device=worker.device,
    )
    precision = Precision(config.precision, worker.device)
    encoding = ItemEncoding(stream, saved.encoder, loader, precision, worker)
    return EncoderVectors(
        encoding, saved.name, config.space, config.dtype, fit_heads=config.is_untrained
    )


def _packed_items(config: EmbedConfig, worker: Worker) -> tuple["Items", "VectorMaker"]:
    """Packed items, and their vectors; features that are not kept yet are computed. Collective."""
    from torchrec_mm.pretraining.embed.packed_vectors import PackedItems, PackedVectors
    from torchrec_mm.pretraining.encoder.precision import Precision
    from torchrec_mm.pretraining.pairs.pack_or_open import open_packed
    from torchrec_mm.pretraining.scl.fit_heads import fit_heads, reader_for

    assert config.packed is not None  # or data would be given
    packed = open_packed(config.packed, config.modalities)
    saved = _encoder(config)
    encoder = saved.encoder.to(worker.device)
    reader = reader_for(
        encoder,
        packed,
        max_pixels=config.max_image_pixels,
        corrupt_share=config.corrupt_share,
        worker=worker,
    )
    if config.is_untrained:
        fit_heads(encoder, reader, worker)
    items = PackedItems(packed)
    return items, PackedVectors(
        items,
        reader,
        encoder,
        name=saved.name,
        space=config.space,
        dtype=config.dtype,
        batch_size=config.batch_size,
        precision=Precision(config.precision, worker.device),
        worker=worker,
    )


def _encoder(config: EmbedConfig) -> "SavedEncoder":
    """A run's; or of no training, its heads not fitted yet."""
    from torchrec_mm.pretraining.encoder.encoder_files import SavedEncoder, load_encoder
    from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder

    if config.is_untrained:
        return SavedEncoder(OFF_THE_SHELF, build_item_encoder(_specs(config)))
    return load_encoder(Path(config.encoder), config.modalities)


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
            modality,
            backbones[modality],
            trainable_layers=0,
            image_size=config.image_size or 64,
            width=config.width or VECTOR_WIDTH,
        )
        for modality in config.modalities
    ]


if __name__ == "__main__":
    sys.exit(run(main))
