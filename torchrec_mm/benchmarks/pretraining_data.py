"""Made-up items and searches for timing: titles, JPEG pictures, nothing to be learned."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.benchmarks.embedding import WORDS, picture
from torchrec_mm.columns.parquet import write_table

ITEMS, PIXELS = 500, 100


def make_searches(root: Path, searches: int) -> None:
    """items/ and searches/ below ``root``; each search has a photo, a text and a clicked item."""
    generator = np.random.default_rng(0)

    def texts(count: int, least: int, most: int) -> list[str]:
        return [
            " ".join(generator.choice(WORDS, generator.integers(least, most))) for _ in range(count)
        ]

    def pictures(count: int) -> list[bytes]:
        return [picture(generator, PIXELS) for _ in range(count)]

    items = {"item_id": np.arange(ITEMS), "title": texts(ITEMS, 3, 15), "image": pictures(ITEMS)}
    write_table(root / "items" / "part-0.parquet", pa.table(items))
    bought = generator.integers(0, ITEMS, searches)
    clicked = [[item] for item in (bought + 1) % ITEMS]
    table = {
        "search_id": np.arange(searches),
        "user_id": np.arange(searches),
        "timestamp": np.arange(searches),
        "query_text": texts(searches, 2, 8),
        "query_image": pictures(searches),
        "purchased_item_id": bought,
        "clicked_item_ids": pa.array(clicked, pa.list_(pa.int64())),
    }
    write_table(root / "searches" / "part-0.parquet", pa.table(table))
