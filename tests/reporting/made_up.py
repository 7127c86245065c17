"""Made-up run folders and data, for tests of the report only."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from torchrec_mm.item_vectors.writer import write_item_vectors

SLICES = ("item_frequency/0", "item_frequency/>100", "item_age/<24h", "item_age/>=24h")


def metrics(method="id", seed=0, gauc=0.6, encoder=None, modality="fused", **changes) -> dict:
    return {
        "auc": gauc + 0.1,
        "gauc": gauc,
        "log_loss": 1 - gauc,
        "impressions": 1234,
        "users": 80,
        "gauc_users": 70,
        "vector_coverage": 1.0 if encoder else None,
        "slices": {name: {"auc": 0.7, "gauc": gauc, "impressions": 300} for name in SLICES},
        "method": method,
        "seed": seed,
        "checkpoint": "checkpoint",
        "vectors": {"encoder": encoder, "modality": modality} if encoder else None,
    } | changes


def put_ranker(folder: Path, epochs=(), **kwargs) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(metrics(**kwargs)))
    put_epochs(folder, epochs)


def put_epochs(folder: Path, epochs) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"step": 20, "loss": 0.4}]
    lines += [
        {"epoch": number, "train_auc": train, "test_auc": test}
        for number, (train, test) in enumerate(epochs, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def put_pretraining(folder: Path, encoder="scl", recall=0.2, seed=None, **more) -> None:
    folder.mkdir(parents=True)
    row = {"encoder": encoder, "recall@1": recall, "recall@10": 2 * recall, "mrr": 0.3}
    figures = row | {"hard_negative_accuracy": None} | more
    (folder / "retrieval.json").write_text(json.dumps(figures))
    if seed is not None:
        (folder / "config.yaml").write_text(f"data: market\nseed: {seed}\n")


def put_data(folder: Path, titles: list[str], pictures: list[bytes | None]) -> None:
    """Items 0, 1, ...; user r clicked item r before, is offered all items and clicks item r."""
    count = len(titles)
    (folder / "items").mkdir(parents=True)
    (folder / "requests" / "test").mkdir(parents=True)
    items = {"item_id": np.arange(count), "title": titles, "image": pa.array(pictures, pa.binary())}
    pq.write_table(pa.table(items), folder / "items" / "part.parquet")
    labels = np.eye(count, dtype=np.int8).tolist()
    requests = {
        "user_id": np.arange(count),
        "behaviour_item_ids": [[item] for item in range(count)],
        "candidate_item_ids": [list(range(count))] * count,
        "labels": pa.array(labels, pa.list_(pa.int8())),
    }
    pq.write_table(pa.table(requests), folder / "requests" / "test" / "part.parquet")


def put_vectors(folder: Path, vectors: np.ndarray, encoder="scl") -> None:
    write_item_vectors(
        folder,
        np.arange(len(vectors)),
        np.asarray(vectors, dtype=np.float64),
        dtype="float32",
        encoder=encoder,
        modality="fused",
    )


def picture(colour="red", size=(40, 20), **save) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "PNG", **save)
    return encoded.getvalue()
