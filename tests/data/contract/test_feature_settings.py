"""features.yaml: what may be said of a column, and every other word refused in one line."""

from pathlib import Path

import pytest

from torchrec_mm.data.contract.feature_settings import FeatureSettings, read_settings
from torchrec_mm.errors import InputError


def settings_of(folder: Path, text: str) -> dict[str, FeatureSettings]:
    (folder / "features.yaml").write_text(text, encoding="utf-8")
    return read_settings(folder)


def test_without_a_file_or_with_an_empty_one_nothing_is_said(tmp_path):
    assert read_settings(tmp_path) == settings_of(tmp_path, "# nothing") == {}


def test_what_is_said_of_each_column_is_read(tmp_path):
    assert settings_of(
        tmp_path,
        """
        ignore: [note, url]
        visits: {kind: numeric, transform: log1p}
        brand: {min_count: 5}
        shape: {kind: ignore}
        """,
    ) == {
        "visits": FeatureSettings(kind="numeric", transform="log1p"),
        "brand": FeatureSettings(min_count=5),
        "shape": FeatureSettings(kind="ignore"),
        "note": FeatureSettings(kind="ignore"),
        "url": FeatureSettings(kind="ignore"),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a]", "must be a mapping by column name, got \\['a'\\]"),
        (
            "price: log1p",
            "price must be a mapping of kind, transform, min_count, pooling, table, got 'log1p'",
        ),
        ("price: {Kind: numeric}", "price must be of kind, .*table, got 'Kind'"),
        ("price: {kind: number}", "price kind must be categorical or numeric or bag or"),
        ("price: {transform: sqrt}", "price transform must be log1p, got 'sqrt'"),
        ("brand: {min_count: 0}", "brand min_count must be a whole number of at least 1, got 0"),
        ("brand: {min_count: yes}", "brand min_count must be a whole number of .*, got True"),
        ("ignore: note", "ignore must be a list of column names, got 'note'"),
        ("{ignore: [a], a: {min_count: 2}}", "must say one thing of a, got more besides ignore"),
        ("{a: {}, a: {}}", "must give each key once, got a on"),
    ],
)
def test_any_other_word_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=f"features.yaml {words}"):
        settings_of(tmp_path, text)
