"""Columns of one table: what must be alike of them, and how their names may meet."""

import re

import pytest

from tests.data.contract.test_bags import TAGS, write
from torchrec_mm.data.contract.describe import describe
from torchrec_mm.data.contract.feature_names import check_names
from torchrec_mm.errors import InputError

ITEMS = {"tags": TAGS, "topics": [[1]] * 4, "brand": ["x", None, "y", "x"], "price": [0.5, 1, 2, 3]}
REQUESTS = {"likes": TAGS, "city": [1, 2, 3, 4]}


def test_each_column_says_which_table_it_shares(tmp_path):
    said = "{likes: {kind: bag, table: words}, tags: {table: words}, brand: {table: words}}"
    found = describe(write(tmp_path, said, ITEMS, REQUESTS))
    assert found["items"]["brand"].startswith("category, table words, string, 25.0% missing")
    assert found["items"]["tags"].startswith("bag, mean, table words, list<string>")
    assert "table words" in found["requests"]["likes"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "{tags: {table: a}, topics: {table: a}}",
            "columns of table a must be of one kind, got string of tags and int64 of topics",
        ),
        (
            "{tags: {table: a}, city: {table: a}}",
            "columns of table a must be of one kind, got string of tags and int64 of city",
        ),
        (
            "{tags: {table: a, min_count: 2}, brand: {table: a}}",
            "columns of table a must be of one min_count, got 2 of tags and 1 of brand",
        ),
        (
            "{tags: {table: a, pooling: sum}, likes: {kind: bag, table: a}}",
            "columns of table a must be of one pooling, got sum of tags and mean of likes",
        ),
        ("{price: {table: a}}", "table must be of a categorical column, got price"),
        ("{tags: {table: }, brand: {table: ' '}}", "brand table must be a name, got ' '"),
        (
            "{tags: {table: brand}}",
            "brand must not share its name with a column of items/, tags, as both tables would be",
        ),
        ("{tags: {table: user_id}}", "as both tables would be user_id_table: rename one"),
    ],
)
def test_columns_that_cannot_share_a_table_are_refused_in_one_line(said, words, tmp_path):
    requests = {"likes": TAGS, "city": [1, 2, 3, 4]} if "likes" in said else {"city": [1, 2, 3, 4]}
    with pytest.raises(InputError, match=re.escape(words)):
        describe(write(tmp_path, said, ITEMS, requests))


def test_names_of_columns_are_their_own_whatever_tables_they_share():
    shared = {"tags": "words", "likes": "words"}
    check_names(["item_id", "tags"], ["user_id", "likes"], [], [], shared=shared)
    for others in (["tags"], ["words"]):
        with pytest.raises(InputError, match="must not share its name with a column of items/"):
            check_names(["tags"], others, [], [], shared=shared)
    with pytest.raises(InputError, match="must not share its name with a column of items/, a.b"):
        check_names(["a.b"], ["a_b"], [], [], shared={"a.b": "x.y", "a_b": "x_y"})
