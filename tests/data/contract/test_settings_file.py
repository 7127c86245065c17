"""features.yaml of a folder that is made: it says nothing, and each of its lines could be said."""

import re

import pyarrow as pa
import pytest

from torchrec_mm.columns.parquet import write_table
from torchrec_mm.data.contract.describe import folder_columns
from torchrec_mm.data.contract.feature_settings import FeatureSettings, read_settings
from torchrec_mm.data.contract.settings_file import put_settings
from torchrec_mm.errors import InputError

ITEMS = {"item_id": [1, 2], "brand": ["a", "b"], "year: 2": [1990, None], "price": [0.5, 1.0]}
ITEMS["tags"] = [["a"], []]
REQUESTS = {
    "user_id": [1, 2],
    "behaviour_item_ids": [[1], [2]],
    "candidate_item_ids": [[1], [2]],
    "labels": [[0], [1]],
    "no": [True, False],
    "visits\n": [3, 4],
    "via": [["a"], ["b"]],
    "candidate_place": [[0], [1]],
    "candidate_cost": [[0.5], [None]],
}


@pytest.fixture
def data(tmp_path):
    write_table(tmp_path / "data" / "items" / "a.parquet", pa.table(ITEMS))
    for split in ("train", "test"):
        write_table(tmp_path / "data" / "requests" / split / "a.parquet", pa.table(REQUESTS))
    return tmp_path / "data"


def test_what_is_written_says_nothing_and_names_every_column(data):
    put_settings(data)
    text = (data / "features.yaml").read_text(encoding="utf-8")
    assert read_settings(data) == {}
    assert re.findall(r"^## (\w+/ .*)$", text, re.M) == [
        "items/ brand: category, string",
        'items/ "year: 2": category, int64',
        "items/ price: number, double",
        "items/ tags: bag, list<string>",
        'requests/ "no": category, bool',
        'requests/ "visits\\n": category, int64',
        "requests/ via: category, list<string>",
        "requests/ candidate_place: category, list<int64>",
        "requests/ candidate_cost: number, list<double>",
    ]


@pytest.mark.parametrize("which", [0, -1])
def test_any_line_without_its_sign_is_a_setting_that_is_taken(data, which):
    put_settings(data)
    path = data / "features.yaml"
    lines = path.read_text(encoding="utf-8").split("\n")
    by_column = [match for line in lines if (match := re.match(r"#(\S.*?): \{", line))]
    for name in {match[1] for match in by_column}:
        said = [line for line in lines if line.startswith(f"#{name}: {{")][which]
        lines[lines.index(said)] = said[1:]
    path.write_text("\n".join(lines), encoding="utf-8")
    settings = read_settings(data)
    assert settings.keys() == {*ITEMS, *REQUESTS} - {
        *("item_id", "user_id", "behaviour_item_ids", "candidate_item_ids", "labels")
    }
    columns = folder_columns(data)
    assert [*columns.requests.bags] == ([] if which == 0 else ["via"])
    numbers = columns.requests.numbers, columns.requests.impression_numbers
    assert [list(names) for names in numbers] == (
        [[], ["candidate_cost"]]
        if which == 0
        else [["visits\n"], ["candidate_place", "candidate_cost"]]
    )


def test_what_is_said_stands_beside_what_could_be(data):
    put_settings(data, said={"price": {"transform": "log1p"}})
    text = (data / "features.yaml").read_text(encoding="utf-8")
    assert "double\nprice: {transform: log1p}\n#price: " in text
    assert read_settings(data) == {"price": FeatureSettings(transform="log1p")}


def test_the_ignored_column_that_is_shown_could_be_ignored(data):
    put_settings(data)
    path = data / "features.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("#ignore", "ignore"))
    assert "brand" not in folder_columns(data).items


def test_what_is_given_is_copied_and_held_to_the_columns(data, tmp_path):
    given = tmp_path / "features.yaml"
    given.write_text("price: {transform: log1p}  # of money\n")
    put_settings(data, given)
    assert (data / "features.yaml").read_text() == given.read_text()
    given.write_text("prize: {transform: log1p}\n")
    with pytest.raises(InputError, match=f"^{given} must name columns of .* got prize$"):
        put_settings(data, given)
