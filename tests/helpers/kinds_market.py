"""The small market with further columns of every kind, nulls among their values."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.small_market import SmallMarket, write_small_market

BRANDS = ("acme", "Acme", "Ünlü & Söhne", "", None)
DEVICES = ("phone", "tablet", None)
NEW_DEVICE = "fridge"  # of requests/test alone
WAYS = ("search", "mail", None)
TAGS = ("new", "sale", "Neü", "")
TOPICS = (7, -3, 11)
NEW_TOPIC = 99  # of requests/test alone
FEATURES = "likes: {kind: bag, pooling: sum}\n"


def write_kinds_market(folder: Path) -> SmallMarket:
    """The small market, its items with text, a Boolean, numbers and bags, its requests as well."""
    market = write_small_market(folder)
    (market.data / "features.yaml").write_text(FEATURES, encoding="utf-8")
    add_columns(market.data / "items", lambda count, rng: of_items(count, rng))
    for split in ("train", "test"):
        requests = market.data / "requests" / split
        table = pq.read_table(requests)
        lengths = [
            table[name].combine_chunks().value_lengths().to_pylist()
            for name in ("behaviour_item_ids", "candidate_item_ids")
        ]
        add_columns(
            requests, lambda count, rng, split=split, n=lengths: of_requests(split, *n, rng)
        )
    return market


def add_columns(folder: Path, make) -> None:
    """Put ``make(rows, rng)``, arrays by name, in place of a file's columns or beside them."""
    table = pq.read_table(folder / "part.parquet")
    columns = dict(zip(table.column_names, table.columns, strict=True))
    columns |= make(len(table), np.random.default_rng(len(table)))
    pq.write_table(pa.table(columns), folder / "part.parquet")


def of_items(count: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    return {
        "brand": drawn(BRANDS, count, rng),
        "is_new": drawn((True, False, None), count, rng),
        "price": with_nulls(rng.lognormal(3, 1, count), rng),
        "tags": bags(TAGS, count, rng, pa.string()),
        "topics": bags(TOPICS, count, rng, pa.int64()),
        "weight_kg": drawn((Decimal("0.50"), Decimal("1.25"), Decimal("7.00"), None), count, rng),
    }


def of_requests(
    split: str, behaviours: list[int], candidates: list[int], rng: np.random.Generator
) -> dict[str, pa.Array]:
    count = len(behaviours)
    texts = pa.list_(pa.string())
    discounts = [with_nulls(rng.random(length), rng) for length in candidates]
    devices = DEVICES if split == "train" else (*DEVICES, NEW_DEVICE)
    return {
        "city": drawn((0, 1, None), count, rng),
        "device": drawn(devices, count, rng).dictionary_encode(),
        "likes": bags(TOPICS if split == "train" else (*TOPICS, NEW_TOPIC), count, rng, pa.int32()),
        "premium": drawn((True, False, None), count, rng),
        "via": pa.array([drawn(WAYS, length, rng) for length in behaviours], texts),
        "age": with_nulls(rng.normal(40, 12, count), rng).cast(pa.float32()),
        "temperature": pa.array(rng.normal(15, 8, count)),
        "candidate_position": pa.array([list(range(length)) for length in candidates]),
        "candidate_source": pa.array([drawn(WAYS, n, rng) for n in candidates], texts),
        "candidate_discount": pa.array(discounts, pa.list_(pa.float64())),
    }


def bags(values: tuple, count: int, rng: np.random.Generator, kind: pa.DataType) -> pa.Array:
    """Lists of up to four of the values, some empty, some null."""
    lists = [list(rng.choice(values, rng.integers(0, 5))) for _ in range(count)]
    return pa.array([b if rng.random() > 0.2 else None for b in lists], pa.list_(kind))


def with_nulls(numbers: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """The numbers, every fourth or so null."""
    return pa.array(numbers, mask=rng.random(len(numbers)) < 0.25)


def drawn(values: tuple, count: int, rng: np.random.Generator) -> pa.Array:
    """As many of the values, at random."""
    kind = pa.array(values).type
    return pa.array([values[place] for place in rng.integers(0, len(values), count)], kind)
