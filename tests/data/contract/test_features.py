"""Ids of categorical columns: the same everywhere, one a value, one for null."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.data.contract import texts
from torchrec_mm.data.contract.features import NULL, Categorical, Numeric, TextIds
from torchrec_mm.errors import InputError

TEXTS = st.lists(st.one_of(st.none(), st.text()), max_size=20)


@given(TEXTS, st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]))
def test_texts_come_back_from_their_ids(texts, kind):
    text_ids = TextIds()
    ids = text_ids.ids(pa.array(texts, kind))
    assert text_ids.texts(ids).to_pylist() == texts
    assert len(np.unique(ids)) == len(set(texts))
    text_ids.check("column brand")


def test_texts_are_matched_exactly():
    texts = ["a", "A", " a", "á", "a\u0301", "", "a\0"]
    assert len({*TextIds().ids(pa.array(texts)).tolist()}) == len(texts)


def test_texts_of_one_id_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(texts, "hash_text", len)
    text_ids = TextIds()
    text_ids.ids(pa.array(["one", "four", "two"]))
    with pytest.raises(InputError, match="^column f must not hold both 'one' and 'two', they have"):
        text_ids.check("column f")
    monkeypatch.setattr(texts, "hash_text", lambda text: NULL)
    text_ids = TextIds(pa.array(["unlucky"]))
    with pytest.raises(InputError, match="both 'unlucky' and null"):
        text_ids.check("column f")


def test_a_column_of_a_trained_model_keeps_no_text_that_comes_later():
    column = Categorical.known(pa.array(["one", None]))
    assert column.text_ids is not None
    later, known = column.ids(pa.array(["two", "one"]), "")
    assert [later, known] == TextIds().ids(pa.array(["two", "one"])).tolist()
    assert column.text_ids.kept == 1


def test_a_text_with_the_id_of_a_known_one_is_refused(monkeypatch):
    monkeypatch.setattr(texts, "hash_text", len)
    column = Categorical.known(pa.array(["one"]))
    assert column.ids(pa.array(["one", "four"]), "").tolist() == [3, 4]
    with pytest.raises(InputError, match="^f must not hold both 'one' and 'two', they have one id"):
        column.ids(pa.array(["two"]), "f")


def test_numbers_are_their_own_ids_and_booleans_zero_and_one():
    numbers = pa.array([5, None, -(2**63), 2**63 - 1])
    assert Categorical(pa.int64()).ids(numbers, "").tolist() == [5, NULL, -(2**63), 2**63 - 1]
    flags = pa.array([True, None, False])
    assert Categorical(pa.bool_()).ids(flags, "").tolist() == [1, NULL, 0]
    with pytest.raises(InputError, match=f"^here must not hold {NULL}, the id of null$"):
        Categorical(pa.int64()).ids(pa.array([None, NULL]), "here")


def test_null_is_no_number_and_log1p_is_taken_where_it_is_wanted():
    found = Numeric(pa.float64()).values(pa.array([0.0, None, -1.5]), "")
    assert [found[0], found[2]] == [0, -1.5] and np.isnan(found[1])
    found = Numeric(pa.float64(), log1p=True).values(pa.array([0.0, None, np.e - 1]), "")
    assert found[0] == 0 and np.isnan(found[1]) and found[2] == pytest.approx(1)


@pytest.mark.parametrize(
    ("numbers", "log1p", "words"),
    [
        ([1.0, float("nan")], False, "here must be finite or null, row 1 has nan"),
        ([None, float("-inf")], False, "here must be finite or null, row 1 has -inf"),
        ([float("inf"), 1.0], True, "here must be finite or null, row 0 has inf"),
        ([1.0, -0.5], True, "here must be at least 0 with log1p, row 1 has -0.5"),
    ],
)
def test_what_is_no_number_is_named_by_row(numbers, log1p, words):
    with pytest.raises(InputError, match=f"^{words}$"):
        Numeric(pa.float64(), log1p).values(pa.array(numbers), "here")


def test_what_is_no_number_in_a_list_is_named_by_its_request():
    values, offsets = pa.array([1.0, 2.0, float("nan")]), np.array([0, 0, 2, 3])
    with pytest.raises(InputError, match="row 2 has nan"):
        Numeric(pa.list_(pa.float64())).values(values, "here", offsets)
