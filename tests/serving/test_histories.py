"""Requests that bring no behaviours have those of their users, and only these."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.columns.parquet import INT64
from torchrec_mm.data.contract.features import Categorical
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.errors import InputError
from torchrec_mm.serving.histories import Histories

COLUMNS = RequestColumns(
    {}, {"action": Categorical(pa.list_(INT64))}, has_labels=False, sequences=("cart",)
)
KNOWN = {
    "user_id": [7, -8],
    "behaviour_item_ids": [[1, 2], [3]],
    "action": [[10, 20], [30]],
    "cart_item_ids": [[5], []],
}


@pytest.fixture
def folder(tmp_path) -> Path:
    pq.write_table(pa.table(KNOWN), tmp_path / "part.parquet")
    return tmp_path


def filled(histories: Histories, **columns: list) -> list[dict]:
    return histories.fill(pa.table(columns)).to_pylist()


def test_a_request_without_behaviours_has_its_users(folder):
    histories = Histories.open(folder, COLUMNS)
    rows = filled(histories, user_id=[-8, 7, 99])
    assert [row["behaviour_item_ids"] for row in rows] == [[3], [1, 2], []]
    assert [row["action"] for row in rows] == [[30], [10, 20], []]
    assert [row["cart_item_ids"] for row in rows] == [[], [5], []]


def test_a_request_with_behaviours_has_its_own_and_nothing_of_the_histories(folder):
    histories = Histories.open(folder, COLUMNS)
    rows = filled(
        histories, user_id=[7, 7, 7], behaviour_item_ids=[[4], None, []], action=[[40], None, []]
    )
    assert [row["behaviour_item_ids"] for row in rows] == [[4], [1, 2], []]
    assert [row["action"] for row in rows] == [[40], [10, 20], []]
    assert [row["cart_item_ids"] for row in rows] == [[], [5], []]


def test_without_histories_what_is_not_brought_is_empty():
    rows = filled(Histories.none(COLUMNS), user_id=[7], behaviour_item_ids=pa.nulls(1))
    assert rows == [{"user_id": 7, "behaviour_item_ids": [], "action": [], "cart_item_ids": []}]


def test_whose_histories_are_asked_for_must_be_said(folder):
    with pytest.raises(InputError, match="requests must have a column user_id"):
        filled(Histories.open(folder, COLUMNS), behaviour_item_ids=[[1]])
    with pytest.raises(InputError, match="user_id must not be null"):
        filled(Histories.open(folder, COLUMNS), user_id=pa.array([None], INT64))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"user_id": [7, 7]}, "user_id must be unique, got 7 more than once"),
        ({"action": None}, "must have a column action"),
        ({"cart_item_ids": [[1], None]}, "cart_item_ids must not be null"),
        ({"behaviour_item_ids": [["a"], []]}, "behaviour_item_ids must be list"),
    ],
)
def test_histories_that_could_be_taken_wrongly_are_refused(tmp_path, changed, said):
    columns = {name: each for name, each in (KNOWN | changed).items() if each is not None}
    pq.write_table(pa.table(columns), tmp_path / "part.parquet")
    with pytest.raises(InputError, match=said):
        Histories.open(tmp_path, COLUMNS)
