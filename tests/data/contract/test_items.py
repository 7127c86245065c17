"""The item catalogue: sorted by id, attributes beside it, mistakes by column."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.contract.features import NULL, text_ids_of
from torchrec_mm.data.contract.items import ItemCatalogue, read_items
from torchrec_mm.errors import InputError


def data_with(tmp_path: Path, *parts: dict) -> Path:
    (tmp_path / "items").mkdir()
    for number, columns in enumerate(parts):
        pq.write_table(pa.table(columns), tmp_path / "items" / f"part-{number}.parquet")
    return tmp_path


def test_items_come_sorted_by_id_and_rows_stay_together(tmp_path):
    data = data_with(
        tmp_path,
        {"item_id": [5, -3], "category_id": [50, 30], "created_at": [500, None]},
        {"item_id": [4], "category_id": [40], "created_at": [400]},
    )
    items = read_items(data)
    assert len(items) == 3
    assert items.item_ids.tolist() == [-3, 4, 5]
    assert items.attributes["category_id"].tolist() == [30, 40, 50]
    assert items.created_at.tolist() == [ItemCatalogue.UNKNOWN_TIME, 400, 500]
    assert items.index.rows(items.item_ids[::-1]).tolist() == [2, 1, 0]


def test_every_further_column_is_an_attribute(tmp_path):
    data = data_with(
        tmp_path,
        {
            "item_id": [1],
            "title": ["a"],
            "image": [b"not decoded here"],
            "image_path": ["a.jpg"],
            "created_at": [7],
            "shop_id": pa.array([3], pa.int32()),
        },
    )
    attributes = read_items(data).attributes
    assert {name: column.tolist() for name, column in attributes.items()} == {"shop_id": [3]}
    assert attributes["shop_id"].dtype == "int64"


def test_attributes_of_all_kinds_are_ids_with_one_for_null(tmp_path):
    data = data_with(
        tmp_path,
        {"item_id": [3, 2], "brand": ["b", None], "is_new": [True, None], "shop": [7, None]},
        {"item_id": [1], "brand": pa.array(["b"]).dictionary_encode(), "is_new": [False]}
        | {"shop": pa.array([9], pa.int8())},
    )
    items = read_items(data)
    b = hash_text("b")
    assert {name: ids.tolist() for name, ids in items.attributes.items()} == {
        "brand": [b, NULL, b],
        "is_new": [0, NULL, 1],
        "shop": [9, NULL, 7],
    }
    (text_ids,) = text_ids_of(items.columns).values()
    assert text_ids.texts(items.attributes["brand"]).to_pylist() == ["b", None, "b"]


def test_numbers_come_in_the_order_of_the_ids_with_nulls_apart(tmp_path):
    prices = [Decimal("0.50"), None]
    data = data_with(tmp_path, {"item_id": [3, 2], "price": prices, "kg": pa.array([1.5, 2.5])})
    items = read_items(data)
    found = {name: numbers.tolist() for name, numbers in items.numbers.items()}
    assert repr(found) == repr({"price": [float("nan"), 0.5], "kg": [2.5, 1.5]})
    assert items.attributes == {}


def test_ids_alone_make_a_catalogue(tmp_path):
    items = read_items(data_with(tmp_path, {"item_id": [2, 1]}))
    assert items.item_ids.tolist() == [1, 2]
    assert items.created_at is None
    assert items.attributes == {}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"title": ["a"]}, "items must have a column item_id"),
        ({"item_id": [1, 1]}, "items column item_id must be unique, got 1 more than once"),
        ({"item_id": ["a"]}, "items/part-0.parquet column item_id must be int64, got string"),
        ({"item_id": [1, None]}, "items/part-0.parquet column item_id must not be null, got 1"),
        ({"item_id": [1], "created_at": ["now"]}, "items/part-0.parquet column created_at must be"),
        ({"item_id": [1], "shop_id": [NULL]}, f"items column shop_id must not hold {NULL}, the id"),
        ({"item_id": [1], "at": [datetime.now()]}, "column at must be int64 or bool or string or"),
        ({"item_id": [1], "price": [float("inf")]}, "items column price must be finite or null, r"),
        (
            {"item_id": [1], "tags": [[0.5]]},
            "or string or double or list<int64> or list<string>, or ",
        ),
        ({"item_id": [1], "Item_ID": [1]}, "items column 'Item_ID' must be named item_id"),
        ({"item_id": [1], "Created_at": [1]}, "column 'Created_at' must be named created_at"),
        (
            {"item_id": [1, 2], "created_at": [None, 1_650_000_000_000_000]},
            "items column created_at must be seconds .* microseconds: divide by 1000000$",
        ),
    ],
)
def test_a_mistake_is_named_by_column(tmp_path, columns, words):
    with pytest.raises(InputError, match=words):
        read_items(data_with(tmp_path, columns))
