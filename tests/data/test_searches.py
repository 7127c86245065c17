"""searches/: in order of time, joined to items, refused where they point nowhere."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.data.item_content import ItemContent, Texts
from torchrec_mm.data.searches import MAX_HARD_NEGATIVES, Searches, read_searches
from torchrec_mm.errors import InputError

ITEMS = ItemContent(np.arange(20) * 10, {"text": Texts([f"title {i}" for i in range(20)])})


def read(tmp_path, **columns) -> Searches:
    """Three searches, some columns replaced."""
    defaults = {
        "search_id": [5, 3, 4],
        "user_id": [1, 1, 2],
        "timestamp": [9, 7, 7],
        "query_text": ["late", "early", "early too"],
        "purchased_item_id": [100, 30, 190],
        "clicked_item_ids": pa.array([[10, 20], [], [0]], pa.list_(pa.int64())),
    }
    (tmp_path / "searches").mkdir()
    pq.write_table(pa.table(defaults | columns), tmp_path / "searches" / "part-0.parquet")
    return read_searches(tmp_path, ITEMS, image_size=8)


def clicks(*lists) -> pa.Array:
    return pa.array(lists, pa.list_(pa.int64()))


def test_searches_are_sorted_by_time_then_id_with_all_that_belongs_to_them(tmp_path):
    searches = read(tmp_path)
    assert searches.search_ids.tolist() == [3, 4, 5]
    assert searches.purchased.tolist() == [3, 19, 10]
    assert searches.hard.tolist() == [[-1, -1], [0, -1], [1, 2]]
    assert searches.by_modality["text"].load(np.arange(3)) == ["early", "early too", "late"]


def test_what_was_bought_is_not_its_own_hard_negative(tmp_path):
    searches = read(tmp_path, clicked_item_ids=clicks([100, 20, 100, 30], [30], [0]))
    assert searches.hard.tolist() == [[-1, -1], [0, -1], [2, 3]]


def test_only_the_first_clicks_are_kept(tmp_path):
    many = [10 * i for i in range(20)]
    searches = read(tmp_path, clicked_item_ids=clicks(many, [], []))
    assert searches.hard[2].tolist() == list(range(MAX_HARD_NEGATIVES))
    assert searches.hard.shape == (3, MAX_HARD_NEGATIVES)


def test_searches_without_any_click_have_no_slots(tmp_path):
    assert read(tmp_path, clicked_item_ids=clicks([], [], [])).hard.shape == (3, 0)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"purchased_item_id": [100, 31, 190]}, "purchased_item_id must be in items/, got 31"),
        ({"clicked_item_ids": clicks([10], [], [7])}, "clicked_item_ids must be in items/, got 7"),
        ({"clicked_item_ids": clicks([10], None, [])}, "clicked_item_ids must not be null"),
        ({"clicked_item_ids": clicks([None], [], [])}, "clicked_item_ids must not hold nulls"),
        ({"search_id": [5, 3, 5]}, "search_id must be unique, got 5"),
        ({"timestamp": ["now", "then", "once"]}, "timestamp must be int64"),
        ({"query_text": pa.nulls(3, pa.string())}, "query_text must hold a value"),
    ],
)
def test_bad_searches_are_refused_by_column_and_value(tmp_path, columns, complaint):
    with pytest.raises(InputError, match=complaint):
        read(tmp_path, **columns)


@pytest.mark.parametrize(("holdout", "expected"), [(0.1, 1), (0.25, 2), (0.5, 5), (0.01, 1)])
def test_the_latest_searches_are_held_out(holdout, expected):
    searches = Searches(np.arange(10), {}, np.zeros(10, int), np.zeros((10, 0), int))
    train, held_out = searches.split(holdout)
    assert [*train, *held_out] == list(range(10))
    assert len(held_out) == expected


def test_holding_out_everything_is_refused():
    searches = Searches(np.arange(3), {}, np.zeros(3, int), np.zeros((3, 0), int))
    with pytest.raises(InputError, match="holdout must leave a search to train on"):
        searches.split(0.9)
