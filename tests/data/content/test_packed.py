"""Packed content: opened whole or refused by name, split without leaks."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.content.content_folders import ITEMS, SEARCH, SEARCHES, write_data
from torchrec_mm.data.content.pack import pack
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.errors import InputError


def packed(folder, modalities=("image", "text"), **data) -> PackedContent:
    pack(write_data(folder / "data", **data), folder / "packed", modalities)
    return PackedContent.open(folder / "packed")


@pytest.fixture
def whole(tmp_path):
    return packed(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        *("item_ids.npy", "attributes.npy", "search_ids.npy"),
        *("timestamps.npy", "purchased.npy", "hard.npy"),
        *(
            f"{modality}/{name}"
            for modality in ("image", "text")
            for name in ("bytes.bin", "start.npy", "length.npy", "content.npy", "is_path.npy")
        ),
    ],
)
def test_a_missing_truncated_or_foreign_file_is_named(whole, file):
    path = whole.folder / file
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(InputError, match=f"{file} must"):
        PackedContent.open(whole.folder)
    path.unlink()
    with pytest.raises(InputError, match=f"{file} must"):
        PackedContent.open(whole.folder)
    if file.endswith(".npy"):
        np.save(path, np.zeros((7, 7)))
        with pytest.raises(InputError, match=rf"{file} must be .* meta.json says, got float64"):
            PackedContent.open(whole.folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 2}, "format must be 1, got 2"),
        ({"items": "3"}, "items must be int, got '3'"),
        ({"items": 4}, r"must be int64 \(1, 4\) as meta.json says"),
        ({"modalities": ["image", "sound"]}, "sound/content.npy must exist"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(whole, change, complaint):
    path = whole.folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=complaint):
        PackedContent.open(whole.folder)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere must be a folder of packed content"):
        PackedContent.open(tmp_path / "nowhere")
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(InputError, match="meta.json must be JSON"):
        PackedContent.open(tmp_path)


CONTENTS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=4, max_size=4)


@settings(deadline=None)
@given(CONTENTS)
def test_fused_contents_are_equal_where_picture_and_text_both_are(pairs):
    image, text = (SimpleNamespace(content=np.array(column)) for column in zip(*pairs, strict=True))
    nothing = np.empty(0, np.int64)
    by_modality = {"image": image, "text": text}
    empty = (nothing, {}, *[nothing] * 4)
    whole = PackedContent(Path(), *empty, by_modality, fingerprint="")
    assert whole.fused_ids().tolist() == [pairs.index(pair) for pair in pairs]


def test_places_outside_the_bytes_and_garbled_texts_are_refused_when_read(whole):
    text = whole.folder / "text"
    (text / "bytes.bin").write_bytes(b"\xff" * (text / "bytes.bin").stat().st_size)
    with pytest.raises(InputError, match=r"bytes\.bin must be UTF-8"):
        PackedContent.open(whole.folder).by_modality["text"].texts(np.array([0]))
    for name, value in (("start", -1), ("start", 10_000), ("length", 1 << 60)):
        whole_file = (text / f"{name}.npy").read_bytes()
        np.save(text / f"{name}.npy", np.full(6, value))
        with pytest.raises(InputError, match=r"length\.npy must name places in bytes\.bin"):
            PackedContent.open(whole.folder).by_modality["text"].texts(np.array([0]))
        (text / f"{name}.npy").write_bytes(whole_file)
    (text / "bytes.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"must name places in bytes\.bin"):
        whole.by_modality["text"].texts(np.array([0]))


def test_what_is_missing_cannot_be_read_and_nothing_is_an_empty_list(tmp_path):
    contents = packed(tmp_path, title=["c", None, "b"]).by_modality["text"]
    with pytest.raises(ValueError, match="rows must have a content, got 0"):
        contents.texts(np.array([1, 0]))
    assert contents.texts(np.array([], dtype=int)) == []


def test_other_processes_open_the_folder_again(whole, monkeypatch):
    monkeypatch.chdir(whole.folder.parent)
    relative = PackedContent.open(whole.folder.relative_to(whole.folder.parent))
    sent = pickle.dumps((relative, relative.by_modality["text"]))
    assert len(sent) < 500
    monkeypatch.chdir("/")
    content, text = pickle.loads(sent)
    assert content.fingerprint == whole.fingerprint
    assert text.texts(np.array([0, 5])) == ["a", "late"]


def test_arrays_cannot_be_written_to(whole):
    for array in (whole.item_ids, whole.hard, whole.by_modality["text"].content):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_fused_ids_of_one_modality_are_its_contents(tmp_path):
    text = packed(tmp_path, ("text",), title=["c", None, "c"])
    assert text.fused_ids().tolist() == [-1, 1, 1, 3, 4, 5]


def many_searches(number: int, item_ids: list[int]) -> list[dict]:
    bought = np.random.default_rng(1).choice(item_ids, number).tolist()
    return [
        SEARCH | {"search_id": i, "timestamp": i, "purchased_item_id": item, "clicked_item_ids": []}
        for i, item in enumerate(bought)
    ]


@pytest.mark.parametrize(("holdout", "expected"), [(0.1, 1), (0.25, 2), (0.5, 5), (0.01, 1)])
def test_the_latest_searches_are_held_out(tmp_path, holdout, expected):
    train, held_out = packed(tmp_path, searches=many_searches(10, [30, 7])).split(holdout)
    assert [*train, *held_out] == list(range(10))
    assert len(held_out) == expected


def test_items_held_out_share_neither_title_nor_picture_with_the_rest(tmp_path):
    generator = np.random.default_rng(3)
    items = [
        {"item_id": i * 7, "category": 0, "title": f"t{title}", "image": b"%d" % image}
        for i, (title, image) in enumerate(generator.integers(0, 1000, (400, 2)))
    ]
    for item in items[::9]:
        item["title"] = None
    searches = many_searches(300, [item["item_id"] for item in items])
    found = packed(tmp_path, items=items, searches=searches)
    is_held_out = found.held_out_items(0.2)
    assert abs(is_held_out.mean() - 0.2) < 0.02
    for column in ("title", "image"):
        values = [
            {i[column] for i, out in zip(items, is_held_out, strict=True) if out == side}
            for side in (True, False)
        ]
        assert values[0] & values[1] == ({None} if column == "title" else set())
    train, held_out = found.split(0.2, by="item")
    assert sorted([*train, *held_out]) == list(range(300)) and len(train) and len(held_out)
    assert is_held_out[found.purchased[held_out]].all()
    assert not is_held_out[found.purchased[train]].any()


def test_a_side_without_searches_is_refused(tmp_path):
    found = packed(tmp_path)
    with pytest.raises(InputError, match="holdout must leave a search to train on, got 0.9 of 3"):
        found.split(0.9)
    with pytest.raises(InputError, match="holdout must leave a search to judge by, got 0.01 of 1"):
        packed(
            tmp_path / "alike",
            items=[item | {"title": "same"} for item in ITEMS],
            searches=SEARCHES[:1],
        ).split(0.01, by="item")
