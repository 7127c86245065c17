"""What each column is taken for, in words that can be checked by hand."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import apps.doctor
from torchrec_mm.columns import chunks
from torchrec_mm.data.contract.describe import describe
from torchrec_mm.errors import InputError

ITEMS = {
    "item_id": pa.array([1, 2, 3, 4]),
    "title": ["a", "b", "c", "d"],
    "brand": ["x", None, "y", "x"],
    "price": [0.5, None, 1e6, 2.0],
    "shape": [{"a": 1}] * 4,
    "stock": [0, 9, 3, 3],
}
REQUESTS = {
    "user_id": [5, 6],
    "behaviour_item_ids": [[1, 2], []],
    "candidate_item_ids": [[3], [4]],
    "labels": pa.array([[1], [0]], pa.list_(pa.int8())),
    "city": pa.array([7, None], pa.int8()),
    "via": [["mail", None], []],
    "candidate_discount": [[0.25], [None]],
}
SETTINGS = "{ignore: [shape], stock: {kind: numeric, transform: log1p}}"


@pytest.fixture
def data(tmp_path) -> Path:
    write(tmp_path / "data" / "items", ITEMS)
    write(tmp_path / "data" / "requests" / "train", REQUESTS)
    write(tmp_path / "data" / "requests" / "test", REQUESTS | {"city": [8, 8]})
    (tmp_path / "data" / "features.yaml").write_text(SETTINGS, encoding="utf-8")
    return tmp_path / "data"


def write(folder: Path, columns: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "part.parquet")


@pytest.mark.parametrize("values", [1, 2_000_000])
def test_every_column_has_its_line(values, data, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_VALUES", values)
    named = "named by the contract"
    assert describe(data) == {
        "items": {
            "item_id": named,
            "title": named,
            "brand": "category, string, 25.0% missing, 2 distinct: 'x', 'y'",
            "price": "number, double, 25.0% missing, 0.5 to 1e+06: 0.5, 1e+06, 2",
            "shape": "ignored",
            "stock": "number, log1p, int64, 0.0% missing, 0 to 2.30259: 0, 9, 3",
        },
        "requests": {
            "user_id": named,
            "behaviour_item_ids": named,
            "candidate_item_ids": named,
            "labels": named,
            "city": "category, int64, 25.0% missing, 2 distinct: 8, 7",
            "via": "category, list<string>, 50.0% missing, 1 distinct: 'mail'",
            "candidate_discount": "number, list<double>, 50.0% missing, 0.25 to 0.25: 0.25",
        },
    }


def test_the_doctor_prints_it_and_nothing_of_the_machine(data, capsys):
    apps.doctor.main(["--data", str(data)])
    out = capsys.readouterr().out
    assert f"{data / 'items'}:" in out and f"{data / 'requests'}:" in out
    assert (
        "  brand                    category, string, 25.0% missing, 2 distinct: 'x', 'y'\n" in out
    )
    assert "releases" not in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cost": [0.5, float("nan")]}, "part.parquet row group 0 .* column cost must be finite"),
        ({"tags": [[[1]], [[2]]]}, "column tags must be int64 or .*, or left out, got list"),
        ({"brand": ["a", "b"]}, "feature brand must not share its name with a column of items/"),
    ],
)
def test_what_encoding_would_refuse_is_refused(changes, words, data):
    for split in ("train", "test"):
        write(data / "requests" / split, REQUESTS | changes)
    with pytest.raises(InputError, match=words):
        describe(data)
