"""A room for embedding: items, tiny encoders, and a run folder of an encoder that was trained."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tests.pretraining.tiny import save_image_encoder, save_text_encoder, write_search_data
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder.encoder_files import save_encoder
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder, build_item_encoder

ITEMS = 40


@dataclass(frozen=True)
class Room:
    """data: with items/. trained: a run folder. specs: of untrained encoders."""

    data: Path
    trained: Path
    specs: tuple[EncoderSpec, EncoderSpec]

    @property
    def off_the_shelf(self) -> list[str]:
        """Flags of apps.embed_items."""
        image, text = (spec.backbone for spec in self.specs)
        return ["--image_encoder", image, "--text_encoder", text, "--image_size", "32"]


def make_room(folder: Path) -> Room:
    write_search_data(folder / "data", items=ITEMS)
    image, text = save_image_encoder(folder / "image"), save_text_encoder(folder / "text")
    specs = (
        EncoderSpec("image", str(image), trainable_layers=0, image_size=32, width=128),
        EncoderSpec("text", str(text), trainable_layers=0, image_size=32, width=128),
    )
    (folder / "trained").mkdir()
    save_encoder(folder / "trained", "scl", learned(build_item_encoder(specs)))
    return Room(folder / "data", folder / "trained", specs)


def learned(encoder: ItemEncoder) -> ItemEncoder:
    """As if trained: the gate has a say, which untrained it has not."""
    torch.manual_seed(7)
    with torch.no_grad():
        encoder.gate.weigh[-1].weight.normal_()
    return encoder


def read_items(data: Path) -> pa.Table:
    return pq.read_table(data / "items")


def write_items(data: Path, items: pa.Table, row_group_size: int = 1000) -> Path:
    """items/ of another data folder."""
    (data / "items").mkdir(parents=True)
    pq.write_table(items, data / "items" / "part-0.parquet", row_group_size=row_group_size)
    return data


def spoil(items: pa.Table, rows: list[int]) -> pa.Table:
    """The same items; the pictures of some rows cannot be decoded."""
    images = items["image"].to_pylist()
    for row in rows:
        images[row] = images[row][:50] + bytes([row])  # unlike the others
    place = items.column_names.index("image")
    return items.set_column(place, "image", pa.array(images, pa.binary()))
