"""A market small enough to read: what the tests of phase two train and fail on.

Ids are arbitrary 64-bit integers, as they are in the wild. Items have two attributes and a time of
creation; requests a user feature, a context feature and two behaviour attributes whose columns
are not in alphabetical order. Some histories are empty, some behaviours are not in `items/`, some
items have no vector, and one item of `requests/test` was never shown in training.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

NUM_ITEMS = 24
VECTOR_WIDTH = 8
DAY_S = 24 * 3600

ITEM_IDS = np.random.default_rng(99).integers(-(2**62), 2**62, NUM_ITEMS)
NEVER_SHOWN = ITEM_IDS[-1]
WITHOUT_VECTOR = ITEM_IDS[:4]
UNKNOWN_BEHAVIOURS = np.array([7, -8, 2**61])
USER_IDS = np.array([5, -6, 2**40, 11, 12, 13, 14, -15])


@dataclass(frozen=True)
class SmallMarket:
    """Folders of one market; ``flags`` are those of every command that reads it."""

    data: Path
    vectors: Path

    @property
    def flags(self) -> list[str]:
        return ["--data", str(self.data)]

    @property
    def vector_flags(self) -> list[str]:
        return [*self.flags, "--vectors", str(self.vectors)]


def write_small_market(folder: Path, train: int = 60, test: int = 25) -> SmallMarket:
    """Write `items/`, `requests/` and item vectors under ``folder``; the same ones every time."""
    market = SmallMarket(folder / "data", folder / "vectors")
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(NUM_ITEMS, VECTOR_WIDTH))
    write_parquet(market.data / "items", item_columns())
    for split, requests in (("train", train), ("test", test)):
        columns = request_columns(rng, taste, split, requests)
        write_parquet(market.data / "requests" / split, columns)
    write_vectors(market.vectors, taste)
    return market


def item_columns() -> dict:
    numbers = np.arange(NUM_ITEMS)
    return {
        "item_id": ITEM_IDS,
        "title": [f"thing {number}" for number in numbers],
        "created_at": [None if number % 5 == 0 else number * DAY_S for number in numbers.tolist()],
        "shop_id": numbers % 3 - 1,
        "category_id": numbers % 4 + 2**50,
    }


def request_columns(rng: np.random.Generator, taste: np.ndarray, split: str, count: int) -> dict:
    columns: dict[str, list] = {
        name: []
        for name in (
            "user_id",
            "timestamp",
            "behaviour_item_ids",
            "candidate_item_ids",
            "labels",
            "city",
            "page",
            "stars",
            "action",
        )
    }
    shown = NUM_ITEMS if split == "test" else NUM_ITEMS - 1
    for number in range(count):
        past = rng.integers(0, shown, rng.integers(0, 7))
        candidates = rng.choice(shown, rng.integers(1, 6), replace=False)
        liking = taste[candidates] @ taste[past].sum(0) if len(past) else rng.normal(size=1)
        behaviours = ITEM_IDS[past]
        if number % 7 == 3 and len(past):
            behaviours[0] = UNKNOWN_BEHAVIOURS[number % 3]
        user = rng.integers(0, len(USER_IDS))
        row = {
            "user_id": USER_IDS[user],
            "timestamp": 10 * DAY_S + number,
            "behaviour_item_ids": behaviours,
            "candidate_item_ids": ITEM_IDS[candidates],
            "labels": (liking + rng.normal(size=len(candidates)) > 0).astype(np.int8),
            "city": user % 3,
            "page": number % 2,
            "stars": past % 5 + 1,
            "action": rng.integers(0, 3, len(past)),
        }
        for name, value in row.items():
            columns[name].append(value)
    return columns


def write_vectors(
    folder: Path,
    values: np.ndarray | None = None,
    encoder: str = "scl",
    seed: int = 1,
    origin: str | None = None,
) -> ItemVectors:
    """Item vectors of all items but WITHOUT_VECTOR; random ones unless given (items, width)."""
    if values is None:
        values = np.random.default_rng(seed).normal(size=(NUM_ITEMS, VECTOR_WIDTH))
    start = len(WITHOUT_VECTOR)
    write_item_vectors(
        folder,
        ITEM_IDS[start:],
        values[start:],
        dtype="float32",
        encoder=encoder,
        modality="image",
        origin=origin,
    )
    return ItemVectors.open(folder)


def lengthen(market: SmallMarket, candidates: int, *rows: int) -> None:
    """Give some requests of both splits as many candidates, and the same number of labels."""
    for split in ("train", "test"):
        folder = market.data / "requests" / split
        columns = read_parquet(folder)
        for row in rows:
            rng = np.random.default_rng(row)
            columns["candidate_item_ids"][row] = rng.choice(ITEM_IDS[:-1], candidates).tolist()
            columns["labels"][row] = rng.integers(0, 2, candidates).tolist()
        write_parquet(folder, columns)


def add_weights(market: SmallMarket, *splits: str) -> None:
    """Weights of the impressions of some splits: a quarter 0, those of every fifth request all."""
    for split in splits:
        folder = market.data / "requests" / split
        rng = np.random.default_rng(len(split))
        lengths = map(len, read_parquet(folder)["labels"])
        weights = [
            rng.choice([0.0, 0.5, 1.0, 4.0], length) * (row % 5 > 0)
            for row, length in enumerate(lengths)
        ]
        rewrite(folder, weights=weights)


EVENTS = ("cart", "passed")


def add_sequences(market: SmallMarket) -> None:
    """Two further behaviour sequences of both splits, some empty, some of unknown items."""
    for split in ("train", "test"):
        folder = market.data / "requests" / split
        rng = np.random.default_rng(len(split))
        known = [*ITEM_IDS[:-1], *UNKNOWN_BEHAVIOURS]
        lists = {
            f"{event}_item_ids": [
                rng.choice(known, length).tolist()
                for length in rng.integers(0, 4 + place, len(read_parquet(folder)["labels"]))
            ]
            for place, event in enumerate(EVENTS)
        }
        rewrite(folder, **lists)


LIST_TYPES = {"labels": pa.list_(pa.int8()), "weights": pa.list_(pa.float32())}


def write_parquet(folder: Path, columns: dict) -> None:
    """One file of a folder; lists of numbers become int64 lists, labels int8 ones."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, values in columns.items():
        is_list = len(values) and isinstance(values[0], list | np.ndarray)
        kind = LIST_TYPES.get(name, pa.list_(pa.int64())) if is_list else None
        arrays[name] = pa.array(values, kind)
    pq.write_table(pa.table(arrays), folder / "part.parquet")


def read_parquet(folder: Path) -> dict[str, list]:
    """The columns of a folder that ``write_parquet`` wrote."""
    return pq.read_table(folder / "part.parquet").to_pydict()


def rewrite(folder: Path, **changes: list | None) -> None:
    """Replace columns of a folder, or drop those given as None."""
    columns = read_parquet(folder) | changes
    write_parquet(folder, {name: values for name, values in columns.items() if values is not None})
