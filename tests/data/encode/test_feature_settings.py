"""features.yaml through the encoder: kinds, log1p, rare values, columns that are left alone."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.encode.test_kinds import column, encoded, robust
from tests.helpers.kinds_market import FEATURES, add_columns, write_kinds_market
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.contract.features import NULL
from torchrec_mm.data.encoded.vocabulary import RARE, Vocabularies
from torchrec_mm.errors import InputError


@pytest.fixture
def data(tmp_path) -> Path:
    return write_kinds_market(tmp_path / "market").data


def say(data: Path, text: str) -> None:
    (data / "features.yaml").write_text(FEATURES + text, encoding="utf-8")


def learned(folder: Path) -> Vocabularies:
    return Vocabularies.load(folder / "vocabularies.safetensors")


def test_integers_and_booleans_are_numbers_where_it_is_said(data, tmp_path):
    numeric = "page: {kind: numeric}\nis_new: {kind: numeric}\n"
    say(data, f"{numeric}city: {{kind: categorical}}")
    out = encoded(data, tmp_path / "out")
    known = learned(out)
    assert {"request/page", "item/is_new"} <= known.numbers.keys()
    assert "page" not in known.request and "is_new" not in known.item and "city" in known.request
    values = column(data / "requests" / "test", "page")
    shown = column(data / "requests" / "train", "page")
    found = column(out / "requests" / "test", "request_number/page")
    assert found == pytest.approx(robust(shown, values))


def test_log1p_comes_before_everything_else_and_later_requests_go_through_it_too(data, tmp_path):
    for split in ("train", "test"):
        add_columns(
            data / "requests" / split,
            lambda count, rng: {"visits": pa.array(rng.integers(0, 10_000, count))},
        )
    say(data, "visits: {kind: numeric, transform: log1p}")
    out = encoded(data, tmp_path / "out")
    shown = np.log1p(column(data / "requests" / "train", "visits")).tolist()
    by_hand = robust(shown, np.log1p(column(data / "requests" / "test", "visits")).tolist())
    (data / "features.yaml").unlink()  # the run knows what training did
    again = encoded(data, tmp_path / "again", ("test",), vocabularies=learned(out))
    for folder in (out, again):
        found = column(folder / "requests" / "test", "request_number/visits")
        assert found == pytest.approx(by_hand, rel=1e-5)


def test_rare_values_share_a_row_and_null_keeps_its_own(data, tmp_path):
    train = data / "requests" / "train"
    texts = ["often"] * 5 + ["twice"] * 2 + ["once", None]
    add_columns(
        train, lambda count, _: {"device": pa.array((texts * count)[:9] + ["often"] * (count - 9))}
    )
    say(data, "device: {min_count: 3}")
    out = encoded(data, tmp_path / "out")
    device = learned(out).request["device"]
    assert {*device.known_ids.tolist()} == {hash_text("often"), NULL}
    assert {*device.rare_ids.tolist()} == {hash_text("twice"), hash_text("once")}
    assert {*device.texts.to_pylist()} == {"often", "twice", "once", None}
    assert column(out / "requests" / "train", "request/device")[5:8] == [RARE] * 3


def test_values_of_items_and_behaviours_are_counted_as_often_as_they_are_shown(data, tmp_path):
    train = data / "requests" / "train"
    shown = column(train, "candidate_item_ids") + column(train, "behaviour_item_ids")
    table = pq.read_table(data / "items")
    brands = dict(zip(table["item_id"].to_pylist(), table["brand"].to_pylist(), strict=True))
    with_brand = [brands[item] for item in shown if item in brands]
    counts = {brand: with_brand.count(brand) for brand in brands.values()}
    ways = column(train, "via")
    least = sorted(counts.values())[1] + 1
    most = ways.count("mail") + 1
    say(data, f"brand: {{min_count: {least}}}\nvia: {{min_count: {most}}}")
    known = learned(encoded(data, tmp_path / "out"))
    rare = {hash_text(b) for b, count in counts.items() if b is not None and count < least}
    assert {*known.item["brand"].rare_ids.tolist()} == rare and rare
    rare = {hash_text(way) for way in ("mail", "search") if ways.count(way) < most}
    assert {*known.behaviour["via"].rare_ids.tolist()} == rare


def test_what_is_to_be_ignored_may_be_anything_and_is_in_no_table(data, tmp_path):
    for folder in (data / "items", data / "requests" / "train", data / "requests" / "test"):
        name = "shape" if folder.name == "items" else "when"
        add_columns(folder, lambda count, _, n=name: {n: pa.array([{"a": 1}] * count)})
    with pytest.raises(InputError, match="column when must be int64 or .*, got struct"):
        encoded(data, tmp_path / "out")
    say(data, "ignore: [when, brand]\nshape: {kind: ignore}")
    known = learned(encoded(data, tmp_path / "out"))
    assert not {"when", "brand", "shape"} & {*known.item, *known.request, *known.behaviour}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour: {min_count: 2}", "features.yaml must name columns of items/ or .*, got colour"),
        ("title: {min_count: 2}", "features.yaml must name columns of items/ or .*, got title"),
        ("labels: {kind: ignore}", "features.yaml must name columns of items/ or .*, got labels"),
        ("price: {min_count: 2}", "min_count must be of a categorical column, got price"),
        ("city: {transform: log1p}", "transform must be of a numeric column, got city: kind: nume"),
        (
            "brand: {kind: numeric}",
            "column brand must be double or int64 or bool, or left out",
        ),
        ("price: {kind: categorical}", "column price must be int64 or bool or string, or left out"),
        (
            "temperature: {transform: log1p}",
            "column temperature must be at least 0 with log1p",
        ),
    ],
)
def test_what_does_not_go_with_the_columns_is_refused(text, words, data, tmp_path):
    say(data, text)
    with pytest.raises(InputError, match=words):
        encoded(data, tmp_path / "out")
