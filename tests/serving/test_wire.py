"""Requests on the wire: JSON and Arrow say the same, and what is wrong is said in one line."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.columns.parquet import BOOL, FLOAT64, INT64, STRING
from torchrec_mm.data.contract.features import Bag, Categorical, Numeric
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.data.contract.texts import TextIds
from torchrec_mm.errors import InputError
from torchrec_mm.serving import wire
from torchrec_mm.serving.arrow_body import read_arrow
from torchrec_mm.serving.histories import Histories
from torchrec_mm.serving.schema import request_schema

TEXTS = TextIds(pa.array(["phone", "tablet"], pa.large_string()))
COLUMNS = RequestColumns(
    {"city": Categorical(INT64), "device": Categorical(STRING, TEXTS)},
    {"action": Categorical(pa.list_(INT64))},
    {"candidate_source": Categorical(pa.list_(INT64))},
    {"age": Numeric(FLOAT64)},
    {"candidate_price": Numeric(pa.list_(FLOAT64))},
    has_labels=False,
    bags={"likes": Bag(Categorical(INT64))},
    sequences=("cart",),
)
MOST = wire.Limits(bytes=10_000, requests=3, candidates=4, behaviours=5)
NONE = Histories.none(COLUMNS)
WHOLE = {
    "user_id": 7,
    "timestamp": 1_700_000_000,
    "behaviour_item_ids": [1, 2],
    "candidate_item_ids": [3, 4],
    "cart_item_ids": [1],
    "city": 5,
    "device": "phone",
    "action": [1, 2],
    "candidate_source": [1, None],
    "age": 30.5,
    "candidate_price": [1.5, None],
    "likes": [1, 2, 3],
}
LEAST = {"user_id": 7, "candidate_item_ids": [3], "candidate_source": [1], "candidate_price": [2]}


def from_json(*rows: dict):
    body = json.dumps(rows[0] if len(rows) == 1 else {"requests": rows}).encode()
    return wire.parse(wire.read_json(body, COLUMNS), COLUMNS, MOST, 5, NONE).requests


def arrow_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def from_arrow(table: pa.Table):
    return wire.parse(read_arrow(arrow_of(table)), COLUMNS, MOST, 5, NONE).requests


def assert_same(one, other) -> None:
    np.testing.assert_equal(plain(one), plain(other))


def plain(found):
    """Dicts and arrays alone."""
    if isinstance(found, Requests | Jagged | dict):
        fields = found if isinstance(found, dict) else vars(found)
        return {name: plain(value) for name, value in fields.items()}
    return found


def test_json_and_arrow_say_the_same():
    types = {**COLUMNS.required, **COLUMNS.nullable}
    table = pa.Table.from_pylist([WHOLE, WHOLE | {"user_id": 8}], pa.schema(types))
    assert_same(from_json(WHOLE, WHOLE | {"user_id": 8}), from_arrow(table))


def test_lists_that_are_left_out_are_empty_and_all_else_is_null():
    found = from_json(LEAST)
    assert_same(found, from_arrow(pa.table({n: [v] for n, v in LEAST.items()})))
    assert found.behaviours.lengths.tolist() == [0] == found.sequences["cart"].lengths.tolist()
    assert np.isnan(found.numbers["age"]).all() and found.timestamps is None


def test_null_is_said_where_the_openapi_page_allows_it_and_nowhere_else():
    schema = request_schema(COLUMNS, MOST)["properties"]
    nothing = from_json(LEAST)
    for name, kind in {**COLUMNS.required, **COLUMNS.nullable}.items():
        if {"type": "null"} in schema[name].get("anyOf", []):
            assert_same(from_json(LEAST | {name: None}), nothing)
        elif pa.types.is_list(kind):
            with pytest.raises(InputError, match=f"request 0 .*{name}"):
                from_json(LEAST | {name: None})


def test_true_and_false_are_the_ids_1_and_0_of_a_feature_and_no_ids_of_items():
    assert from_json(LEAST | {"city": True}).features["city"].tolist() == [1]
    table = pa.table({n: [v] for n, v in (WHOLE | {"city": False}).items()})
    assert table["city"].type == BOOL and from_arrow(table).features["city"].tolist() == [0]
    with pytest.raises(InputError, match=r"request 0 candidate_item_ids must be .*, got \[true\]"):
        from_json(LEAST | {"candidate_item_ids": [True]})


def test_a_whole_number_may_have_a_point_as_long_as_it_says_which_number_it_is():
    assert from_json(LEAST | {"candidate_item_ids": [3.0], "city": 4.0}).candidates.values == [3]
    with pytest.raises(InputError, match="request 0 user_id must be int64, got 1e"):
        from_json(LEAST | {"user_id": 1e17})


@pytest.mark.parametrize("sent", [pa.int16(), pa.int64(), pa.float32(), pa.bool_()])
def test_a_number_may_come_in_any_type_of_numbers(sent):
    table = pa.table({n: [v] for n, v in WHOLE.items()})
    place = table.column_names.index("age")
    table = table.set_column(place, "age", pa.array([1], pa.int8()).cast(sent))
    assert from_arrow(table).numbers["age"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"candidate_item_ids": [1]}], "request 0 must have user_id"),
        ([LEAST, LEAST | {"user_id": "a"}], 'request 1 user_id must be int64, got "a"'),
        ([LEAST | {"user_id": 2.5}], "request 0 user_id must be int64, got 2.5"),
        ([LEAST, LEAST | {"user_id": 2**63}], f"request 1 user_id must be int64, got {2**63}"),
        ([LEAST | {"candidate_item_ids": [1, 2.5]}], "request 0 candidate_item_ids must be list"),
        ([LEAST | {"candidate_item_ids": 3}], "request 0 candidate_item_ids must be list"),
        ([LEAST | {"candidate_item_ids": None}], "request 0 must have candidate_item_ids"),
        ([{"user_id": 1, "candidate_item_ids": [1]}], "request 0 must have candidate_source"),
        ([LEAST | {"candidate_item_ids": []}], "candidate_item_ids must not be empty, row 0 is"),
        ([LEAST | {"candidate_item_ids": [None]}], "candidate_item_ids must not hold nulls"),
        ([LEAST | {"candidate_item_ids": [[1]]}], "request 0 candidate_item_ids must be list"),
        ([LEAST | {"age": "old"}], 'request 0 age must be double, got "old"'),
        ([LEAST | {"likes": [None]}], "likes must not hold a null in a list"),
        ([LEAST | {"labels": [1]}], "request 0 must have columns that the ranker reads"),
        ([LEAST | {"candidate_source": [1, 2]}], "candidate_source must be as long as candidate"),
        ([LEAST | {"behaviour_item_ids": [1]}], "action must be as long as behaviour_item_ids"),
        ([LEAST | {"candidate_item_ids": [1] * 5}], "candidate_item_ids must be at most 4 long"),
        ([LEAST | {"cart_item_ids": [1] * 6}], "cart_item_ids must be at most 5 long, got 6"),
        ([LEAST] * 4, "requests must be at most 3, got 4"),
        ([[1]], "body must be a request"),
        ([{"requests": []}], "body must be a request"),
        ([{"requests": 3}], "body must be a request"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_line(rows, said):
    with pytest.raises(InputError, match="^[^\n]*$") as error:
        from_json(*rows)
    assert said in str(error.value)


def test_a_column_that_the_ranker_does_not_read_is_refused_in_arrow_too():
    table = pa.table({n: [v] for n, v in (WHOLE | {"labels": [0, 1]}).items()})
    with pytest.raises(InputError, match="that the ranker reads, .*, got labels"):
        from_arrow(table)


def test_no_requests_are_refused():
    types = {**COLUMNS.required, **COLUMNS.nullable}
    with pytest.raises(InputError, match="requests must be at least 1, got 0"):
        from_arrow(pa.schema(types).empty_table())


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("is_text", [False, True])
def test_what_would_be_inflated_is_refused(codec, is_text):
    table = pa.table({n: [v] for n, v in WHOLE.items()})
    if is_text:  # whose values are in a message before
        texts = pa.array(["phone" * 99]).dictionary_encode()
        table = table.set_column(table.column_names.index("device"), "device", texts)
    sink = io.BytesIO()
    with pa.ipc.new_stream(
        sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)
    ) as stream:
        stream.write_table(table)
    with pytest.raises(InputError, match="without compression"):
        read_arrow(sink.getvalue())
    assert read_arrow(arrow_of(table)).num_rows == 1


@given(st.data())
def test_bytes_that_are_not_what_they_say_are_refused_and_end_nothing(data):
    whole = bytearray(arrow_of(pa.table({n: [v] for n, v in WHOLE.items()})))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for body in (bytes(whole), cut):
        try:
            wire.parse(read_arrow(body), COLUMNS, MOST, 5, NONE)
        except InputError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_as_json_are_refused_in_one_line_or_read(body):
    try:
        wire.parse(wire.read_json(body, COLUMNS), COLUMNS, MOST, 5, NONE)
    except InputError as error:
        assert "\n" not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*WHOLE]), JSON))
def test_whatever_stands_in_a_column_is_refused_in_one_line_or_read(values):
    body = json.dumps(LEAST | values).encode()
    try:
        wire.parse(wire.read_json(body, COLUMNS), COLUMNS, MOST, 5, NONE)
    except InputError as error:
        assert "\n" not in str(error)


def test_answers_hold_a_list_for_each_request():
    each = [np.array([0.5, 0.25], np.float32), np.array([0.75], np.float32)]
    said = json.loads(wire.write_json(each, ["a", "b"], "step-1"))
    wanted = {"click_probabilities": [[0.5, 0.25], [0.75]], "request_ids": ["a", "b"]}
    assert said == wanted | {"checkpoint": "step-1"}
    table = pa.ipc.open_stream(wire.write_arrow(each, ["a", "b"], "step-1")).read_all()
    assert table["click_probabilities"].to_pylist() == said["click_probabilities"]
    assert table["request_id"].to_pylist() == said["request_ids"]
    assert table.schema.metadata == {b"checkpoint": b"step-1"}


def request_ids(*given: object) -> list[str]:
    table = wire.read_json(
        json.dumps({"requests": [LEAST | {"request_id": each} for each in given]}).encode(), COLUMNS
    )
    return wire.parse(table, COLUMNS, MOST, 5, NONE).request_ids


def test_a_request_keeps_its_own_id_and_has_a_new_one_without():
    own, first, second = request_ids("mine", None, None)
    assert own == "mine" and first != second and len(first) == 32


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([""], "request_id must be 1 to 128 characters long, got 0"),
        (["x" * 129], "request_id must be 1 to 128 characters long, got 129"),
        (["a", None, "a"], 'request_id must be unique, got "a" more than once'),
        ([7], "request 0 request_id must be string, got 7"),
    ],
)
def test_an_id_that_names_no_request_or_two_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        request_ids(*given)


def test_a_ranker_with_a_feature_called_as_the_id_cannot_be_asked():
    columns = RequestColumns({"request_id": Categorical(INT64)}, {}, has_labels=False)
    with pytest.raises(InputError, match="must be of a ranker without a feature request_id"):
        wire.columns_of(columns)
