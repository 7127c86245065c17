"""Tiny encoders and search data, so that whole runs take seconds.

Pictures are one colour each and titles a few words. Queries are negatives of the picture and the
title's words in another language: what no encoder knows, and a few steps can learn.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from PIL import Image

WORDS = [f"word{i}" for i in range(40)]
QUERY_WORDS = [f"mot{i}" for i in range(40)]
PICTURES = torch.randint(  # of noise, as an encoder reads them
    0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def save_image_encoder(folder: Path) -> Path:
    """A timm folder with random weights: 32-pixel pictures, a few hundred kilobytes."""
    torch.manual_seed(5)
    model = timm.create_model("test_efficientnet", pretrained=False, num_classes=0)
    for module in model.modules():  # statistics that are not those of any batch
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder


def save_text_encoder(folder: Path) -> Path:
    """A sentence-transformers folder: a BERT of two layers over a word-level vocabulary."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(6)
    bert = folder.parent / f"{folder.name}-bert"
    bert.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *QUERY_WORDS]
    (bert / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(str(bert / "vocab.txt")).save_pretrained(bert)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(bert)
    transformer = Transformer(str(bert), max_seq_length=16)
    pooling = Pooling(32, pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder))
    return folder


def jpeg(colour: np.ndarray, generator: np.random.Generator, noise: float) -> bytes:
    """A 20 x 30 picture of a colour (3,), in [0, 255], with noise of that standard deviation."""
    pixels = colour + generator.normal(0, noise, (30, 20, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


def write_search_data(data: Path, items: int = 40, searches: int = 120, seed: int = 0) -> Path:
    """items/ and searches/; a few titles, pictures and queries are null."""
    generator = np.random.default_rng(seed)
    colours = generator.uniform(0, 255, (items, 3))
    titles = [" ".join(generator.choice(WORDS, 4, replace=False)) for _ in range(items)]
    item_ids = generator.permutation(np.arange(items) * 7 - 100)
    pictures = [jpeg(colour, generator, 2) for colour in colours]
    titles_or_null = [None if i == 3 else title for i, title in enumerate(titles)]
    pictures_or_null = [None if i == 5 else picture for i, picture in enumerate(pictures)]
    _write(
        data / "items",
        item_id=pa.array(item_ids),
        title=pa.array(titles_or_null, pa.string()),
        image=pa.array(pictures_or_null, pa.binary()),
    )
    bought = generator.integers(0, items, searches)
    clicked = [generator.integers(0, items, generator.integers(0, 4)) for _ in range(searches)]
    texts = [" ".join(generator.permutation(titles[i].split())[:3]) for i in bought]
    texts = [text.replace("word", "mot") for text in texts]
    photos = [jpeg(255 - colours[i], generator, 25) for i in bought]
    _write(
        data / "searches",
        search_id=pa.array(np.arange(searches) + 1000),
        user_id=pa.array(np.arange(searches) % 10),
        timestamp=pa.array(generator.integers(0, 50, searches)),
        query_text=pa.array([None if s % 9 == 0 else t for s, t in enumerate(texts)], pa.string()),
        query_image=pa.array(
            [None if s % 9 == 1 else p for s, p in enumerate(photos)], pa.binary()
        ),
        purchased_item_id=pa.array(item_ids[bought]),
        clicked_item_ids=pa.array(
            [item_ids[rows].tolist() for rows in clicked], pa.list_(pa.int64())
        ),
    )
    return data


def _write(folder: Path, **columns: pa.Array) -> None:
    folder.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
