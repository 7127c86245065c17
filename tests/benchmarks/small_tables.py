"""Tables of TAOBAO-MM's shape in which the clicked candidates are like the past."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_tables(
    folder: Path,
    users: int = 60,
    test_users: int = 20,
    items: int = 300,
    length: int = 80,
    candidates: int = 11,
    seed: int = 0,
) -> Path:
    """The six files; a tenth of the items has no vector, a user's history at most ``length``."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    ids = random.choice(2**62, items, replace=False) * random.choice([-1, 1], items)
    taste = random.integers(0, 8, items)
    centres = random.normal(size=(8, 128))
    vectors = centres[taste] + random.normal(size=(items, 128))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * 127).astype(np.int8)
    category = taste * 1_000_003 - 5
    kept = random.random(items) < 0.9
    columns = {"205": ids, "206": category, "213": taste % 3 + 7, "214": taste % 5 - 9}
    pq.write_table(pa.table(columns), folder / "item_features.parquet")
    pq.write_table(
        pa.table({"205": ids[kept], "205_c": list(vectors[kept])}),
        folder / "scl_embedding_int8_p90.parquet",
    )
    by_taste = [np.flatnonzero(taste == t) for t in range(8)]
    for split, count in (("train", users), ("test", test_users)):
        user_ids = random.choice(2**62, count, replace=False)
        likes = random.integers(0, 8, count)
        lengths = random.integers(max(1, length // 2), length + 1, count)
        past = [random.choice(by_taste[t], n) for t, n in zip(likes, lengths, strict=True)]
        profile = {f"130_{i}": random.integers(-3, 3, count) for i in range(1, 6)}
        pq.write_table(
            pa.table(
                {
                    "129_1": user_ids,
                    **profile,
                    "150_2_180": [ids[rows] for rows in past],
                    "151_2_180": [category[rows] for rows in past],
                }
            ),
            folder / f"{split}_user_features.parquet",
        )
        shown = random.integers(0, items, (count, candidates))
        click = random.random(shown.shape) < np.where(taste[shown] == likes[:, None], 0.6, 0.05)
        labels = np.stack([~click, click], axis=-1).reshape(-1, 2).astype(np.int8)
        pq.write_table(
            pa.table(
                {
                    "label_0": pa.array(list(labels), pa.list_(pa.int8())),
                    "129_1": np.repeat(user_ids, candidates),
                    "205": ids[shown.ravel()],
                }
            ),
            folder / f"{split}_samples.parquet",
        )
    return folder
