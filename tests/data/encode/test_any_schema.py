"""Whatever columns logs hold: each is used, or else the refusal names it."""

import json
import tempfile
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.data.contract.request_columns import column_of
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.errors import InputError

INTS, TEXTS, REALS = [3, None, 5, 3], ["a", "b", None, ""], [0.5, 1.5, None, 2.5]
SCALARS = {
    **dict.fromkeys((pa.int8(), pa.int64(), pa.uint32()), INTS),
    **dict.fromkeys((pa.string(), pa.large_string(), pa.string_view()), TEXTS),
    pa.dictionary(pa.int32(), pa.string()): TEXTS,
    pa.bool_(): [True, None, False, True],
    **dict.fromkeys((pa.float16(), pa.float32(), pa.float64()), REALS),
    pa.decimal128(9, 2): [Decimal("0.25"), None, Decimal(3), Decimal(4)],
    pa.null(): [None] * 4,
}
LISTS = {
    **dict.fromkeys((pa.list_(pa.int16()), pa.large_list(pa.int64())), INTS),
    **dict.fromkeys((pa.list_(pa.string()), pa.list_(pa.large_string())), TEXTS),
}
OF_CANDIDATES = LISTS | {pa.list_(pa.float32()): REALS, pa.large_list(pa.float64()): REALS}
OTHERS = {
    pa.timestamp("us"): [datetime(2024, 1, 1)] * 4,
    pa.date32(): [date(2024, 1, 1)] * 4,
    pa.binary(): [b"x"] * 4,
    pa.struct({"a": pa.int64()}): [{"a": 1}] * 4,
    pa.map_(pa.string(), pa.int64()): [[("a", 1)]] * 4,
    pa.list_(pa.list_(pa.int64())): [[[1]]] * 4,
}
BAGS = {
    **dict.fromkeys((pa.list_(pa.int32()), pa.large_list(pa.int64())), [[3, 5], None, [], [5, 5]]),
    **dict.fromkeys(
        (pa.list_(pa.string()), pa.list_(pa.string_view())), [["a", "b"], None, [], [""]]
    ),
    pa.list_(pa.dictionary(pa.int8(), pa.string())): [["a"], ["b", "a"], None, []],
}
BEHAVIOURS = [[1], [2], [3], [4]]  # one each, so that lists of either are as long
COLUMNS = {
    "items": SCALARS,
    "requests": SCALARS,
    "items_bags": BAGS,
    "requests_bags": BAGS,
    "behaviours": {kind: [[value] for value in values] for kind, values in LISTS.items()},
    "candidates": {kind: [[value] for value in values] for kind, values in OF_CANDIDATES.items()},
}


@st.composite
def schemas(draw) -> dict[str, dict[str, pa.Array]]:
    """Columns by folder, with names that say which may not be used."""
    columns: dict[str, dict[str, pa.Array]] = {"items": {}, "requests": {}}
    for owner, kinds in COLUMNS.items():
        folder = "items" if owner.startswith("items") else "requests"
        for place, kind in enumerate(draw(st.lists(st.sampled_from([*kinds]), max_size=3))):
            name = f"candidate_{place}" if owner == "candidates" else f"{owner}_{place}"
            columns[folder][name] = pa.array(kinds[kind], kind)
    for event in draw(st.sets(st.sampled_from(["cart", "passed"]))):
        kind = draw(st.sampled_from([pa.list_(pa.int32()), pa.large_list(pa.int64())]))
        columns["requests"][f"{event}_item_ids"] = pa.array([[1], [], [9, 2, 2], [3]], kind)
    if draw(st.booleans()):
        kind = draw(st.sampled_from([pa.list_(pa.float32()), pa.large_list(pa.float64())]))
        columns["requests"]["weights"] = pa.array([[0.5], [0], [2], [1]], kind)
    for place, kind in enumerate(draw(st.lists(st.sampled_from([*OTHERS]), max_size=1))):
        folder = draw(st.sampled_from([*columns]))
        columns[folder][f"unusable_{place}"] = pa.array(OTHERS[kind], kind)
    return columns


def said_of(columns: dict[str, dict[str, pa.Array]], is_shared: bool) -> dict[str, dict[str, str]]:
    """What features.yaml has to say: of the bags of requests, and of tables that columns share."""
    said: dict[str, dict[str, str]] = {}
    for name, values in {**columns["items"], **columns["requests"]}.items():
        if name.endswith("_item_ids"):  # a further sequence, whose table is that of items
            continue
        said[name] = {"kind": "bag"} if name.startswith("requests_bags") else {}
        kind = values.type.value_type if hasattr(values.type, "value_type") else values.type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        words = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        if is_shared and any(is_text(kind) for is_text in words):
            said[name]["table"] = "words"
        elif is_shared and (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            said[name]["table"] = "numbers"
    return {name: each for name, each in said.items() if each}


def write(data: Path, columns: dict[str, dict[str, pa.Array]]) -> None:
    items = {"item_id": pa.array([1, 2, 3, 4]), **columns["items"]}
    lists = {name: BEHAVIOURS for name in ("behaviour_item_ids", "candidate_item_ids")}
    labels = pa.array([[1], [0], [1], [0]], pa.list_(pa.int8()))
    requests = {"user_id": [1, 1, 2, 2], **lists, "labels": labels, **columns["requests"]}
    for folder, table in {"items": items, "requests/train": requests}.items():
        (data / folder).mkdir(parents=True)
        pq.write_table(pa.table(table), data / folder / "part.parquet")


@given(schemas(), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_every_column_is_used_or_named_in_the_refusal(columns, is_ignored, is_shared):
    names = {*columns["items"], *columns["requests"]}
    wrong = {name for name in names if name.startswith("unusable")}
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(scratch, "data"), Path(scratch, "out")
        write(data, columns)
        said: dict = said_of(columns, is_shared)
        if is_ignored:
            said["ignore"] = sorted(wrong)
        (data / "features.yaml").write_text(json.dumps(said), encoding="utf-8")
        if wrong and not is_ignored:
            with pytest.raises(InputError, match=f"column {wrong.pop()} must be int64 or "):
                encode_folder(data, ("train",), out, max_behaviours=5)
            return
        encode_folder(data, ("train",), out, max_behaviours=5)
        meta = json.loads((out / "meta.json").read_text(encoding="utf-8"))
    used = [
        name
        for key, each in meta.items()
        if key.endswith(("_features", "_numbers", "_bags"))
        for name in each
    ]
    used += [column_of(event) for event in meta.get("sequences", ())]
    used += ["weights"] * (meta.get("weighted") == ["train"])
    assert {*used} - {"user_id", "item_id"} == names - wrong
