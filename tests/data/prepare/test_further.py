"""Further columns of rows of impressions: every kind arrives, at the request or the impression."""

from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.prepare.test_impressions import prepare, write
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.prepare.further import codes, of_text
from torchrec_mm.data.prepare.prepared import write_prepared
from torchrec_mm.errors import InputError

ROWS = {
    "user_id": [1, 1, 2, 1],
    "item_id": [10, 11, 10, 12],
    "label": [0, 1, 0, 1],
    "timestamp": [5, 5, 9, 11],
}


def columns_of(prepared):
    """Both splits, by column, in the order of users and times."""
    return pa.concat_tables([prepared.train, prepared.test]).to_pydict()


def further(folder, **columns):
    found = columns_of(prepare(write(folder, **ROWS | columns)))
    return {name: found[name] for name in found if name not in ROWS}


@pytest.mark.parametrize(
    "values",
    [
        ["a", "a", None, "b"],
        [True, True, None, False],
        [0.5, 0.5, None, -1.0],
        [3, 3, None, 4],
        [[1, 2], [1, 2], [], [3]],
        [["x"], ["x"], [], ["y", "x"]],
    ],
)
def test_a_column_of_any_kind_with_one_value_a_request_is_of_the_request(tmp_path, values):
    found = further(tmp_path / "in", city=values)
    assert found["city"] == [values[0], values[2], values[3]]


def test_decimals_and_dictionaries_are_numbers_and_text(tmp_path):
    price = pa.array([Decimal("1.50"), Decimal("1.50"), None, Decimal("2")])
    city = pa.array(["a", "a", None, "b"]).dictionary_encode()
    found = further(tmp_path / "in", price=price, city=city)
    assert found["price"] == [1.5, None, 2.0] and found["city"] == ["a", None, "b"]


@pytest.mark.parametrize(
    "values", [["a", None, "b", "c"], [True, False, None, True], [0.5, 1.5, None, 2.0]]
)
def test_a_column_that_differs_inside_requests_is_of_the_impression(tmp_path, values):
    prepared = prepare(write(tmp_path / "in", **ROWS | {"place": values}))
    found = columns_of(prepared)
    assert found["candidate_place"] == [values[:2], values[2:3], values[3:]]
    assert "place" not in found
    assert prepared.notes[-1].startswith("column place differs inside requests: it is candidate_pl")


def test_a_column_called_candidate_is_of_the_impression_whatever_it_holds(tmp_path):
    found = columns_of(prepare(write(tmp_path / "in", **ROWS | {"candidate_x": [7, 7, 7, None]})))
    assert found["candidate_x"] == [[7, 7], [7], [None]]
    folder = write(tmp_path / "mapped", **ROWS | {"ad": ["y", "y", "n", "n"]})
    found = columns_of(prepare(folder, columns={"candidate_ad": "ad"}))
    assert found["candidate_ad"] == [["y", "y"], ["n"], ["n"]] and "ad" not in found


def many_requests(**columns):
    """101 requests of two impressions; ``columns``: of the first of them, others have 0."""
    rows = {"user_id": [1] * 202, "item_id": list(range(202)), "label": [0, 1] * 101}
    rows["timestamp"] = [at // 2 for at in range(202)]
    return rows | {name: [*values, *[0] * (202 - len(values))] for name, values in columns.items()}


def test_what_differs_inside_one_request_of_a_hundred_is_refused_unless_it_is_named(tmp_path):
    folder = write(tmp_path / "in", **many_requests(city=[0, 1]))
    complaint = "column city must have one value a request .* got several in 1 of 101: leave it"
    with pytest.raises(InputError, match=complaint):
        prepare(folder)
    named = prepare(folder, columns={"candidate_city": "city"})
    assert named.train["candidate_city"][0].as_py() == [0, 1]
    often = prepare(write(tmp_path / "often", **many_requests(city=[0, 1, 0, 1])))
    assert "candidate_city" in often.train.column_names


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"tags": [[1], [2], [], []]}, "column tags must have one value a request, as lists of"),
        ({"place": [1, 2, 3, 4], "candidate_place": [0] * 4}, "where candidate_place is another"),
        ({"labels": [0, 0, 0, 0]}, "column labels must have another name"),
        ({"weights": [1.0] * 4}, "column weights must have another name"),
        ({"point": [{"x": 1}] * 4}, "a.parquet column point must be int64 or bool or string or"),
        ({"day": [datetime(2026, 1, 1)] * 4}, "column day must be int64 or bool or string or"),
        ({"tags": [[1], [1], None, []]}, "column tags must not be null, got 1 nulls"),
        ({"weight": ["a"] * 4}, "column weight must be a number, got string"),
        ({"weight": [1.0, -0.5, 1.0, 1.0]}, "weight must be at least 0 and finite, got -0.5"),
        ({"weight": [1.0, None, 1.0, 1.0]}, "weight must be at least 0 and finite, got null"),
    ],
)
def test_what_has_no_one_meaning_is_refused_by_name(tmp_path, columns, complaint):
    with pytest.raises(InputError, match=complaint):
        prepare(write(tmp_path / "in", **ROWS | columns))


@pytest.mark.parametrize("weight", [[2.0, 0.5, 1.0, 0.0], [2, 1, 1, 0]])
def test_weights_are_lists_of_the_impressions_even_where_they_never_differ(tmp_path, weight):
    found = columns_of(prepare(write(tmp_path / "in", **ROWS | {"weight": weight})))
    assert found["weights"] == [weight[:2], weight[2:3], weight[3:]]


def test_rows_that_differ_in_a_feature_alone_are_not_one(tmp_path):
    twice = {name: [*values, values[3]] for name, values in ROWS.items()}
    folder = write(tmp_path / "in", **twice | {"place": [1.0, 2.0, 3.0, 4.0, None]})
    with pytest.raises(InputError, match="one for each user, item and timestamp"):
        prepare(folder)
    same = prepare(write(tmp_path / "same", **twice | {"place": [1.0, 2.0, 3.0, 4.0, 4.0]}))
    assert columns_of(same)["candidate_place"] == [[1.0, 2.0], [3.0], [4.0]]


def test_lists_as_long_as_the_behaviours_are_cut_with_them_and_others_are_not(tmp_path):
    columns = {
        **{name: values[1:] for name, values in ROWS.items()},
        "behaviour_item_ids": [[1, 2, 3], [], [4]],
        "behaviour_days": [[7, 8, 9], [], [6]],
        "cart_item_ids": [[5, 6, 7, 8], [9], []],
        "tags": [["a", "b", "c"], ["d"], ["e"]],
    }
    found = columns_of(prepare(write(tmp_path / "in", **columns), behaviours=2))
    assert found["behaviour_days"] == [[8, 9], [6], []]
    assert found["cart_item_ids"] == [[7, 8], [], [9]]
    assert found["tags"] == [["a", "b", "c"], ["e"], ["d"]]


def test_text_ids_in_further_sequences_are_those_of_items(tmp_path):
    columns = {"item_id": ["x", "y", "x", "z"], "cart_item_ids": [["y"], ["y"], [], ["q"]]}
    prepared = prepare(write(tmp_path / "in", **ROWS | columns))
    found = columns_of(prepared)["cart_item_ids"]
    assert found == [[hash_text("y")], [], [hash_text("q")]]
    texts = pa.concat_tables(prepared.texts["item_id"])["text"].to_pylist()
    assert set(texts) == {"x", "y", "z", "q"}


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["1", " 2 ", ""], [1, 2, None]),
        (["1", "2.5", "-1e3"], [1.0, 2.5, -1000.0]),
        (["true", "False", ""], [True, False, None]),
        (["01", "1"], ["01", "1"]),
        (["1", "x"], ["1", "x"]),
        (["99999999999999999999"], ["99999999999999999999"]),
        (["nan", "1"], ["nan", "1"]),
    ],
)
def test_text_of_csv_is_what_all_its_values_are(texts, values):
    assert of_text(pa.chunked_array([texts])).to_pylist() == values


def test_kinds_of_csv_columns_are_said(tmp_path):
    (tmp_path / "in").mkdir()
    lines = ["user_id,item_id,label,timestamp,city,price,weight"]
    lines += ["1,10,0,5,a,1.5,1", "1,11,1,5,a,2,0.5", "2,10,1,9,,,2"]
    (tmp_path / "in" / "a.csv").write_text("\n".join(lines))
    prepared = prepare(tmp_path / "in")
    told = "columns of CSV files are taken for what all their values are: weight numbers, city text"
    assert prepared.notes[0] == f"{told}, price numbers"
    assert columns_of(prepared)["candidate_price"] == [[1.5, 2.0], [None]]
    assert columns_of(prepared)["weights"] == [[1.0, 0.5], [2.0]]
    assert columns_of(prepared)["city"] == ["a", None]


@pytest.mark.parametrize("values", [[[1], [1, 2], [2, 1], [1]], [None, 0.0, None, 0.0]])
def test_codes_are_equal_where_values_are(values):
    found = codes(pa.chunked_array([values])).tolist()
    equal = [[one == other for other in values] for one in values]
    assert [[one == other for other in found] for one in found] == equal


def test_features_that_differ_arrive_in_files_that_can_be_described(tmp_path):
    columns = {"city": ["a", "a", None, "b"], "place": [0, 1, 0, 0], "price": [1.5, 2.5, 0.5, 1.0]}
    prepared = prepare(write(tmp_path / "in", **ROWS | columns))
    write_prepared(tmp_path / "data", prepared)
    train = pq.read_table(tmp_path / "data" / "requests" / "train")
    assert train.column_names[-3:] == ["city", "candidate_place", "candidate_price"]
