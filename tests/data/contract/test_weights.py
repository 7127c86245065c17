"""Weights of impressions on disk: lists as long as the labels, of numbers that can weigh."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.request_folders import read_requests
from torchrec_mm.data.contract.describe import describe
from torchrec_mm.errors import InputError

GOOD = {
    "user_id": [5, -6],
    "behaviour_item_ids": [[1, 2, 3], []],
    "candidate_item_ids": [[7], [8, 9]],
    "labels": pa.array([[1], [0, 1]], pa.list_(pa.int8())),
}
FLOATS = pa.list_(pa.float64())


def weights_of(tmp_path, weights: list | pa.Array, kind: pa.DataType | None = FLOATS):
    (tmp_path / "train").mkdir(exist_ok=True)
    table = pa.table(GOOD | {"weights": pa.array(weights, kind)})
    pq.write_table(table, tmp_path / "train" / "part.parquet")
    return read_requests(tmp_path / "train", 50).weights


@pytest.mark.parametrize("kind", [FLOATS, pa.large_list(pa.float32()), pa.list_(pa.float16())])
def test_weights_are_numbers_as_long_as_the_labels(kind, tmp_path):
    found = weights_of(tmp_path, [[0.5], [0.0, 2.0]], kind)
    assert found.dtype == np.float32 and found.tolist() == [0.5, 0.0, 2.0]


def test_without_the_column_there_are_none(tmp_path):
    (tmp_path / "train").mkdir()
    pq.write_table(pa.table(GOOD), tmp_path / "train" / "part.parquet")
    assert read_requests(tmp_path / "train", 50).weights is None


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([[1.0], [1.0]], "column weights must be as long as labels, row 1 has 1 and 2"),
        ([[1.0], None], "column weights must not be null, row 1 is"),
        ([[1.0], [1.0, None]], "weights must be finite and at least 0, row 1 has null"),
        ([[1.0], [1.0, -0.5]], "weights must be finite and at least 0, row 1 has -0.5"),
        ([[1e39], [1.0, 1.0]], "weights must be finite and at least 0, row 0 has 1e+39"),
        ([[1.0], [math.nan, 1.0]], "column weights must be finite or null, row 1 has nan"),
        ([[math.inf], [1.0, 1.0]], "column weights must be finite or null, row 0 has inf"),
    ],
)
def test_what_can_weigh_nothing_is_refused_by_row(weights, words, tmp_path):
    with pytest.raises(InputError) as refused:
        weights_of(tmp_path, weights)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("weights", "kind"), [([1.0, 2.0], pa.float64()), ([["a"], ["b", "c"]], pa.list_(pa.string()))]
)
def test_other_types_are_refused_by_name(weights, kind, tmp_path):
    with pytest.raises(InputError, match="column weights must be list<.*double>, got"):
        weights_of(tmp_path, weights, kind)


def test_they_are_named_by_the_contract(tmp_path):
    for folder in ("requests", "items"):
        (tmp_path / folder).mkdir()
    weights_of(tmp_path / "requests", [[0.5], [0.0, 2.0]])
    pq.write_table(pa.table({"item_id": [7, 8, 9]}), tmp_path / "items" / "part.parquet")
    assert describe(tmp_path)["requests"]["weights"] == "named by the contract"
