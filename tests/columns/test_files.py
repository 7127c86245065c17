"""Which files of a folder count: each of them once, or one that is there is named."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.columns import files
from torchrec_mm.columns.files import LOGS, PARQUET, data_files, kind_of, pictures
from torchrec_mm.errors import InputError

ENDINGS = (
    *("", ".parquet", ".PARQUET", ".parq", ".csv", ".CSV", ".csv.gz", ".tsv", ".json", ".md"),
    *(".parquet.bak", ".parquet.crc", ".csv~", ".jpg", ".JPEG", "/", "/a.parquet", ".parquet/"),
)
NAMES = st.tuples(st.sampled_from(["", ".", "_", "._"]), st.sampled_from("abc=")).map("".join)
ENTRIES = st.dictionaries(NAMES, st.sampled_from(ENDINGS), max_size=5)


def folder_of(path: Path, *names: str) -> Path:
    """Empty files and, where a name ends in a slash, folders."""
    for name in names:
        target = path / name
        (target if name.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            target.touch()
    return path


def names_of(folder: Path, *more) -> list[str]:
    found = data_files(folder, *more)
    assert all(file.parent == folder for file in found)
    return [file.name for file in found]


@given(ENTRIES, st.sampled_from([(PARQUET,), LOGS]))
@settings(deadline=None, max_examples=300)
def test_every_file_is_read_once_or_an_entry_of_the_folder_is_refused_by_name(entries, kinds):
    with tempfile.TemporaryDirectory() as scratch:
        folder = folder_of(Path(scratch), *(name + ending for name, ending in entries.items()))
        shown = sorted(name for name in os.listdir(folder) if name[0] not in "._")
        tables = [n for n in shown if n.endswith(kinds) and (folder / n).is_file()]
        if shown and tables == shown and len({kind_of(folder / n) for n in tables}) == 1:
            assert names_of(folder, kinds) == shown
            return
        with pytest.raises(InputError) as refusal:
            data_files(folder, kinds)
        words = str(refusal.value).removeprefix(str(folder))
        assert "\n" not in words
        assert any(f" {name}" in words for name in shown) if shown else "found none" in words


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.parquet", "b.csv"], "of one kind, got a.parquet and b.csv"),
        (["a.csv.zst", "b.ndjson"], "of one kind, got a.csv.zst and b.ndjson"),
        (["a.csv", "b.csv.xz"], "got b.csv.xz: convert it, move it elsewhere"),
        (["a.csv", "b.CSV"], "got b.CSV: convert it"),
        (["a.parquet", "day=1/a.parquet"], "got day=1: it is a folder, and only one level is read"),
        (["day=1/a.parquet"], "got day=1: it is a folder"),
        (["a.parquet/part-0.parquet"], "got a.parquet: it is a folder"),
        (["a.parquet", "README.md"], ".parquet, .csv, .* or .ndjson.zst files only, got README.md"),
        ([".a.parquet", "_b.parquet"], "must hold at least one .parquet, .* file, found none"),
    ],
)
def test_what_would_be_left_out_is_refused_and_how_to_go_on_is_said(tmp_path, names, words):
    with pytest.raises(InputError, match=words):
        data_files(folder_of(tmp_path, *names), LOGS)


def test_hidden_names_are_no_data(tmp_path):
    hidden = ["._a.parquet", ".a.parquet", "_SUCCESS", "_metadata", "_old/a.csv", ".git/config"]
    assert names_of(folder_of(tmp_path, "a.parquet", *hidden)) == ["a.parquet"]


def test_one_file_under_two_names_is_refused(tmp_path):
    folder = folder_of(tmp_path / "d", "part-0.parquet", "part-1.parquet")
    (folder / "latest.parquet").symlink_to("part-1.parquet")
    with pytest.raises(InputError, match="got latest.parquet and part-1.parquet, which are one"):
        data_files(folder)


def test_links_to_files_elsewhere_are_read_under_the_names_they_have(tmp_path):
    (tmp_path / "kept").touch()
    folder = folder_of(tmp_path / "d", "b.parquet")
    (folder / "a.parquet").symlink_to(tmp_path / "kept")
    assert names_of(folder) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize("target", ["nowhere", "a.parquet"])
def test_a_link_that_leads_nowhere_is_refused(tmp_path, target):
    (tmp_path / "a.parquet").symlink_to(target)
    with pytest.raises(InputError, match=r"a\.parquet|[Ss]ymbolic links"):
        data_files(tmp_path)


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="none must be a folder of Parquet files: no such folder"):
        data_files(tmp_path / "none")
    with pytest.raises(InputError, match=r"file must be a folder of Parquet files: .*Not a dir"):
        data_files(tmp_path / "file")


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    def denied(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(files.os, "scandir", denied)
    with pytest.raises(InputError, match="must be a folder of Parquet files: .*Permission denied"):
        data_files(tmp_path)


def test_pictures_and_folders_of_pictures_lie_beside_the_tables_that_name_them(tmp_path):
    beside = [
        "1.jpg",
        "2.JPEG",
        "x=3.webp",
        "shots/a.png",
        "shots/a.json",
        "ab/cd/aGk=.gif",
        "new/",
    ]
    folder = folder_of(tmp_path, "a.parquet", *beside, "shots/._a.parquet", "shots/.git/a.csv")
    assert names_of(folder, (PARQUET,), pictures) == ["a.parquet"]


@pytest.mark.parametrize(
    "name",
    [
        *("day=1/", "day=1/b.jpg", "more/b.parquet", "more/b.PARQUET", "more/2024/b.parquet"),
        *("more/day=1/b", "more/b.csv.gz", "b.parquet/b.jpg", "b.parquet.bak", "b.CSV"),
        *("b", "b.md"),
    ],
)
def test_tables_are_not_taken_for_pictures(tmp_path, name):
    folder = folder_of(tmp_path, "a.parquet", "shots/a.jpg", name)
    with pytest.raises(InputError, match=f"files only, got {name.partition('/')[0]}: "):
        data_files(folder, (PARQUET,), pictures)


def test_of_many_pictures_some_are_looked_at(tmp_path, monkeypatch):
    names = [f"shots/{number // 50}/{number}.jpg" for number in range(500)]
    folder = folder_of(tmp_path, "a.parquet", *names)
    monkeypatch.setattr(files, "LOOKED_AT", 20)
    seen = []
    below = files._below
    monkeypatch.setattr(files, "_below", lambda at: (seen.append(e) or e for e in below(at)))
    assert names_of(folder, (PARQUET,), pictures) == ["a.parquet"]
    assert len({entry.path for entry in seen}) == 20
