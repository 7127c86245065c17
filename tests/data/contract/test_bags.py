"""Lists of values that belong together, against what stands in them."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.contract.describe import describe
from torchrec_mm.data.contract.feature_settings import read_settings
from torchrec_mm.data.contract.features import Bag, Categorical
from torchrec_mm.data.contract.items import item_columns, open_items, read_bags
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.data.contract.requests import parse_requests
from torchrec_mm.errors import InputError

TAGS = [["a", "b"], None, [], ["b", "b"]]
NUMBERS = [[1, 2], None, [], [-3, -3]]
TEXT = pa.string()


def write(data: Path, settings: str = "", items: Mapping = {}, requests: Mapping = {}) -> Path:
    columns = {
        "items": {"item_id": [4, 2, 3, 1], **items},
        "requests/train": {
            "user_id": [1, 1, 2, 2],
            "behaviour_item_ids": [[1], [2, 3], [], [4]],
            "candidate_item_ids": [[1], [2], [3], [4]],
            "labels": pa.array([[1], [0], [1], [0]], pa.list_(pa.int8())),
            **requests,
        },
    }
    for folder, table in columns.items():
        (data / folder).mkdir(parents=True)
        pq.write_table(pa.table(table), data / folder / "part.parquet")
    (data / "features.yaml").write_text(settings, encoding="utf-8")
    return data


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.list_(TEXT), pa.large_list(pa.large_string()), pa.list_(pa.string_view())),
        *(
            pa.list_(pa.dictionary(pa.int8(), TEXT)),
            pa.list_(pa.int16()),
            pa.large_list(pa.int64()),
        ),
    ],
    ids=str,
)
def test_a_list_of_an_item_is_a_bag_whatever_its_encoding(kind, tmp_path):
    of_text = not pa.types.is_integer(kind.value_type)
    data = write(tmp_path, items={"tags": pa.array(TAGS if of_text else NUMBERS, kind)})
    bags = item_columns(open_items(data / "items"))
    assert isinstance(bags["tags"], Bag) and bags["tags"].pooling == "mean"
    ((item_ids, found),) = read_bags(data / "items", bags)
    expected = [*map(hash_text, "abbb")] if of_text else [1, 2, -3, -3]
    assert item_ids.tolist() == [4, 2, 3, 1]
    assert found["tags"].values.tolist() == expected
    assert found["tags"].lengths.tolist() == [2, 0, 0, 2]


def test_values_that_a_null_hides_are_not_in_any_bag():
    mask = pa.array([False, True, False])
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3, 4]), pa.array([1, 8, 9, 4]), mask=mask)
    found = Bag(Categorical(pa.int64())).ids(pa.chunked_array([lists]), "here")
    assert found.values.tolist() == [1, 4] and found.offsets.tolist() == [0, 1, 1, 2]


def test_a_null_in_a_bag_is_refused_by_column_and_row(tmp_path):
    data = write(tmp_path, items={"tags": [["a"], [], ["b", None], None]})
    bags = item_columns(open_items(data / "items"))
    with pytest.raises(InputError, match="column tags must not hold a null in a list, row 2 does"):
        list(read_bags(data / "items", bags))


def test_a_list_of_a_request_is_a_bag_where_features_yaml_says_so(tmp_path):
    said = "likes: {kind: bag, pooling: sum, min_count: 3}"
    data = write(tmp_path, said, requests={"likes": TAGS, "via": [[1], [2, 3], [], [4]]})
    folder = ParquetFolder(data / "requests" / "train")
    columns = RequestColumns.of([folder], read_settings(data))
    assert list(columns.bags) == ["likes"] and list(columns.behaviour_attributes) == ["via"]
    assert columns.bags["likes"].pooling == "sum" and columns.bags["likes"].each.min_count == 3
    requests = parse_requests(pq.read_table(folder.files[0]), "here", columns, 1)
    assert requests.bags["likes"].lengths.tolist() == [2, 0, 0, 2]


def test_each_bag_has_its_line_with_its_length_and_the_share_of_empty_ones(tmp_path):
    data = write(
        tmp_path,
        "{likes: {kind: bag}, tags: {pooling: sum}}",
        {"tags": TAGS},
        {"likes": pa.array(NUMBERS, pa.list_(pa.int32()))},
    )
    found = describe(data)
    length = "50.0% empty, mean length 1.00, 2 distinct"
    assert found["items"]["tags"] == f"bag, sum, list<string>, {length}: 'a', 'b'"
    tail = "50.0% empty, mean length 1.00, 3 distinct: 1, 2, -3"
    assert found["requests"]["likes"] == f"bag, mean, list<int64>, {tail}"


@pytest.mark.parametrize(
    ("said", "columns", "words"),
    [
        ("tags: {pooling: max}", {}, "features.yaml tags pooling must be mean or sum, got 'max'"),
        ("brand: {pooling: sum}", {}, "pooling must be of a bag, got brand"),
        ("tags: {transform: log1p}", {}, "transform must be of a numeric column, got tags"),
        ("brand: {kind: bag}", {}, "column brand must be list<int64> or list<string>, or left out"),
        ("tags: {kind: numeric}", {}, "column tags must be double or int64 or bool, or left out"),
        (
            "",
            {"tags": [[0.5]] * 4},
            "column tags must be int64 or bool or string or double",
        ),
        (
            "",
            {"tags": [[["a"]]] * 4},
            "column tags must be int64 or bool or string or double",
        ),
    ],
)
def test_a_bag_that_is_none_is_refused_in_one_line(said, columns, words, tmp_path):
    items = {"tags": TAGS, "brand": [1, 2, 3, 4]} | columns
    with pytest.raises(InputError, match=words):
        describe(write(tmp_path, said, items))


def test_a_bag_of_a_candidate_is_refused_in_one_line(tmp_path):
    data = write(
        tmp_path, "candidate_tags: {kind: bag}", requests={"candidate_tags": [[1], [2], [3], [4]]}
    )
    with pytest.raises(InputError, match="column candidate_tags must not be a bag, but one value"):
        describe(data)
