"""Embedding a catalogue, from Parquet to the item vectors' folder, against the encoder alone.

Ours reads, decodes, tokenises, encodes, writes parts and joins them. The baseline only runs the
encoder, over the same batches, which lie decoded and tokenised in its memory.
"""

import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from torchrec_mm.benchmarks.harness import BenchmarkConfig, alternate, comparison, in_fresh_process
from torchrec_mm.columns.parquet import write_table
from torchrec_mm.config import check_fields
from torchrec_mm.data.content.item_stream import ItemStream
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.pretraining.embed.head_sample import ItemEncoding
from torchrec_mm.pretraining.embed.item_batches import BatchLoader, cores_of_process
from torchrec_mm.pretraining.embed.vector_makers import EncoderVectors
from torchrec_mm.pretraining.embed.vector_run import make_item_vectors
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder.encoder_files import load_encoder, save_encoder
from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.encoder.side import Side

SPACE, DTYPE = "fused", "int8"
WORDS = [f"{a}{b}" for a in ("red", "soft", "long", "new") for b in ("coat", "lamp", "shoe", "cup")]


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(BenchmarkConfig):
    """Items a second, end to end, of apps.embed_items on made-up titles and pictures.

    The baseline is the encoder's forward pass alone, over the same batches in memory.
    """

    items: int = 4096
    """Items of the catalogue, each with a title and a JPEG picture."""
    picture_pixels: int = 100
    """Height and width of the pictures."""
    image_size: int = 64
    """Height and width that they are decoded to."""
    batch_size: int = 64
    """Items encoded at once."""
    num_workers: int | None = None
    """Threads that decode, as in apps.embed_items; ours alone needs them."""
    threads: int | None = None
    """Threads of the encoder on both sides, PyTorch's own choice if null."""
    image_encoder: str = "efficientnet-lite0"
    """As in apps.pretrain."""
    text_encoder: str = "all-minilm-l6-v2"
    """As in apps.pretrain."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = ("items", "picture_pixels", "batch_size")
        check_fields(self, lambda x: x >= 1, "at least 1", *numbers)
        check_fields(self, lambda x: x >= 32, "at least 32", "image_size")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "threads", "num_workers")


def compare(config: EmbeddingConfig) -> Iterator[dict[str, Any]]:
    """One comparison, on one process."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        make_catalogue(root, config)
        backbones = (("image", config.image_encoder), ("text", config.text_encoder))
        specs = [
            EncoderSpec(name, backbone, trainable_layers=0, image_size=config.image_size)
            for name, backbone in backbones
        ]
        (root / "encoder").mkdir()
        save_encoder(root / "encoder", "scl", build_item_encoder(specs))
        fresh = partial(in_fresh_process, threads=config.threads)
        sides = {side.__name__: partial(fresh, side, root, config) for side in (ours, bare)}
        speeds = alternate(sides, config.runs)
    yield comparison(
        "embedding",
        "items/s",
        speeds["ours"],
        speeds["bare"],
        more_is_better=True,
        items=config.items,
        batch_size=config.batch_size,
        picture_pixels=config.picture_pixels,
    )


def ours(root: Path, config: EmbeddingConfig) -> float:
    """Items a second from Parquet files to the folder on disk."""
    with process_group() as worker, TemporaryDirectory(dir=root) as folder:
        encoding = item_encoding(root, config, worker)
        encode(encoding, next(batches(encoding)))
        start = time.perf_counter()
        stream = ItemStream(root, encoding.stream.modalities)
        of_stream = replace(encoding, stream=stream)
        maker = EncoderVectors(of_stream, "scl", SPACE, DTYPE, fit_heads=False)
        make_item_vectors(Path(folder) / "vectors", stream, maker, {}, 0.0, worker)
        return config.items / (time.perf_counter() - start)


def bare(root: Path, config: EmbeddingConfig) -> float:
    """Items a second of the forward pass."""
    with process_group() as worker:
        encoding = item_encoding(root, config, worker)
        ready = list(batches(encoding))
        encode(encoding, ready[0])
        start = time.perf_counter()
        for batch in ready:
            encode(encoding, batch)
        return config.items / (time.perf_counter() - start)


def item_encoding(root: Path, config: EmbeddingConfig, worker: Worker) -> ItemEncoding:
    """What both sides have before the clock starts: encoder and tokeniser."""
    encoder = load_encoder(root / "encoder").encoder.to(worker.device)
    loader = BatchLoader(
        encoder,
        max_image_pixels=config.picture_pixels**2,
        batch_size=config.batch_size,
        num_threads=config.num_workers or cores_of_process(),
        device=worker.device,
    )
    stream = ItemStream(root, tuple(encoder.encoders))
    return ItemEncoding(stream, encoder, loader, Precision("float32", worker.device), worker)


def batches(encoding: ItemEncoding) -> Iterator[Side]:
    """The batches that ours makes, on the device."""
    for part in encoding.stream.parts:
        items = encoding.stream.read(part)
        for batch in encoding.loader.batches(items, np.arange(len(items))):
            yield batch.side


@torch.inference_mode()
def encode(encoding: ItemEncoding, side: Side) -> None:
    """Forward, and the vectors back on the host, so that a GPU has finished."""
    encoding.encoder(side)[SPACE].cpu()


def make_catalogue(root: Path, config: EmbeddingConfig) -> None:
    """items/ with titles of 3 to 14 words and smooth, slightly noisy pictures."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(3, 15, config.items)
    table = pa.table(
        {
            "item_id": np.arange(config.items),
            "title": [" ".join(generator.choice(WORDS, length)) for length in lengths],
            "image": [picture(generator, config.picture_pixels) for _ in lengths],
        }
    )
    write_table(root / "items" / "part-00000.parquet", table, row_group_rows=1024)


def picture(generator: np.random.Generator, pixels: int) -> bytes:
    """A JPEG of a few kilobytes."""
    colours = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    smooth = Image.fromarray(colours).resize((pixels, pixels), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + generator.normal(0, 4, (pixels, pixels, 3))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()
