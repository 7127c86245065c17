"""The small market with further columns of every kind, nulls among their values."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.small_market import SmallMarket, write_small_market

BRANDS = ("acme", "Acme", "Ünlü & Söhne", "", None)
DEVICES = ("phone", "tablet", None)
NEW_DEVICE = "fridge"  # of requests/test alone
WAYS = ("search", "mail", None)


def write_kinds_market(folder: Path) -> SmallMarket:
    """The small market, its items with a brand and a Boolean, its requests with as much."""
    market = write_small_market(folder)
    add_columns(market.data / "items", lambda count, rng: of_items(count, rng))
    for split in ("train", "test"):
        requests = market.data / "requests" / split
        lengths = pq.read_table(requests)["behaviour_item_ids"].combine_chunks().value_lengths()
        add_columns(
            requests, lambda count, rng, s=split, n=lengths: of_requests(s, n.to_pylist(), rng)
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
    }


def of_requests(split: str, lengths: list[int], rng: np.random.Generator) -> dict[str, pa.Array]:
    devices = DEVICES if split == "train" else (*DEVICES, NEW_DEVICE)
    return {
        "city": drawn((0, 1, None), len(lengths), rng),
        "device": drawn(devices, len(lengths), rng).dictionary_encode(),
        "premium": drawn((True, False, None), len(lengths), rng),
        "via": pa.array([drawn(WAYS, length, rng) for length in lengths], pa.list_(pa.string())),
    }


def drawn(values: tuple, count: int, rng: np.random.Generator) -> pa.Array:
    """As many of the values, at random."""
    kind = pa.array(values).type
    return pa.array([values[place] for place in rng.integers(0, len(values), count)], kind)
