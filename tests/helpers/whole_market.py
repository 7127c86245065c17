"""A market for both phases: tiny pictures, titles, searches and requests over the same items."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.helpers.small_market import write_parquet
from tests.pretraining.tiny import save_image_encoder, save_text_encoder, write_search_data

USERS = 8


def write_whole_market(folder: Path) -> Path:
    """items/, searches/ and requests/ under ``folder``; returns it."""
    write_search_data(folder, searches=60)
    item_ids = pq.read_table(folder / "items")["item_id"].to_numpy()
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 25)):
        rows = range(count)
        columns = {
            "user_id": rng.integers(0, USERS, count),
            "timestamp": np.arange(count),
            "behaviour_item_ids": [rng.choice(item_ids, rng.integers(0, 6)) for _ in rows],
            "candidate_item_ids": [rng.choice(item_ids, 4, replace=False) for _ in rows],
            "labels": [rng.permutation([0, 0, 1, 1]).astype(np.int8) for _ in rows],
        }
        write_parquet(folder / "requests" / split, columns)
    return folder


def tiny_flags(encoders: Path) -> dict[str, dict]:
    """Flags of each stage of apps.pipeline, for a run of seconds; saves the encoders it names."""
    return {
        "pretrain": {
            "image_encoder": str(save_image_encoder(encoders / "image")),
            "text_encoder": str(save_text_encoder(encoders / "text")),
            **{"image_size": 32, "batch_size": 16, "bank_slots": 64, "epochs": 1},
        },
        "encode": {"min_count": 2},
        "train_make": {"width": 6, "hidden": [8, 4], "batch_requests": 16, "epochs": 1},
        "train_ranker": {
            **{"embedding_dim": 4, "hidden": [8, 4], "batch_requests": 16, "num_tiers": 5}
        },
    }
