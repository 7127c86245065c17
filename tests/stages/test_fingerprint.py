"""Fingerprints of stages: what changes them and what does not."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.stages.fingerprint import files_signature, fingerprint, path_signature

NAMES = st.text("abc", min_size=1, max_size=3)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), st.text(max_size=3)
)
SETTINGS = st.dictionaries(NAMES, st.one_of(VALUES, st.lists(VALUES, max_size=2)), max_size=4)
MARKS = st.dictionaries(NAMES, st.text("0123456789abcdef", min_size=1, max_size=4), max_size=3)


def same_json(one, other) -> bool:
    """Equal, where True is not 1 and 0.0 is neither 0 nor -0.0."""
    return repr(sorted(one.items())) == repr(sorted(other.items()))


@settings(deadline=None)
@given(st.lists(st.tuples(SETTINGS, MARKS, MARKS), min_size=2, max_size=2))
def test_fingerprints_are_equal_where_all_that_the_result_depends_on_is(described):
    (settings, reads, inputs), others = described
    mine = fingerprint("app", settings, reads, inputs)
    equal = all(map(same_json, (settings, reads, inputs), others))
    assert (mine == fingerprint("app", *others)) == equal
    assert mine != fingerprint("other", settings, reads, inputs)
    assert len(mine) == 64


@settings(deadline=None)
@given(SETTINGS)
def test_the_order_of_flags_does_not_matter(settings):
    turned = dict(reversed(settings.items()))
    assert fingerprint("app", settings, {}, {}) == fingerprint("app", turned, {}, {})


@settings(deadline=None)
@given(MARKS.filter(bool))
def test_a_stage_before_is_not_an_input(marks):
    assert fingerprint("app", {}, marks, {}) != fingerprint("app", {}, {}, marks)


def write(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (folder / name).write_text(name)
        os.utime(folder / name, ns=(0, 10**18))
    return folder


CHANGES = {
    "removed": lambda folder: (folder / "a").unlink(),
    "added": lambda folder: (folder / "deep/c").write_text(""),
    "renamed": lambda folder: (folder / "a").rename(folder / "c"),
    "moved": lambda folder: (folder / "a").rename(folder / "deep/a"),
    "longer": lambda folder: resize(folder / "a"),
    "written again": lambda folder: os.utime(folder / "a", ns=(0, 10**18 + 1)),
}


def resize(file: Path) -> None:
    file.write_text("longer")
    os.utime(file, ns=(0, 10**18))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_folder_of_other_files_has_another_signature(tmp_path, change):
    folder = write(tmp_path / "folder")
    before = path_signature(folder)
    change(folder)
    assert path_signature(folder) != before


def test_where_a_folder_lies_does_not_matter(tmp_path):
    before = path_signature(write(tmp_path / "folder"))
    (tmp_path / "folder").rename(tmp_path / "elsewhere")
    assert path_signature(tmp_path / "elsewhere") == before


def test_a_signature_is_of_the_files_that_are_named_in_any_order(tmp_path):
    folder = write(tmp_path / "folder")
    files = [folder / "a", folder / "deep/b"]
    assert files_signature(files, folder) == files_signature(files[::-1], folder)
    assert files_signature(files, folder) == path_signature(folder)
    assert files_signature(files[:1], folder) != path_signature(folder)
    assert files_signature(files[:1], folder) == path_signature(files[0])


def test_a_path_among_the_settings_stands_for_what_it_holds(tmp_path):
    folder = write(tmp_path / "folder")
    before = fingerprint("app", {"vocabulary": folder}, {}, {})
    (tmp_path / "copy").symlink_to(folder)
    assert fingerprint("app", {"vocabulary": tmp_path / "copy"}, {}, {}) == before
    CHANGES["longer"](folder)
    assert fingerprint("app", {"vocabulary": folder}, {}, {}) != before
