"""Rows of packed content to sides: what goes where, what is missing, what is counted."""

import pickle
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.pretraining.embed.embedded import spoil
from tests.pretraining.packed_room import SIZE
from tests.pretraining.tiny import write_search_data
from torchrec_mm.data.content.images import decode_images
from torchrec_mm.data.content.pack import pack
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.pretraining.pairs.features import Features
from torchrec_mm.pretraining.pairs.side_reader import (
    FeatureSource,
    PictureSource,
    SideReader,
    TextSource,
)

SEEDS = np.arange(8)


def tokenise(texts: list[str]) -> dict[str, torch.Tensor]:
    """The lengths of texts."""
    return {"length": torch.tensor([[len(text)] for text in texts])}


def reader_of(packed: PackedContent, modalities=("image", "text")) -> SideReader:
    image, text = packed.by_modality["image"], packed.by_modality["text"]
    sources = {"image": PictureSource(image, SIZE), "text": TextSource(text, tokenise)}
    return SideReader(packed, {name: sources[name] for name in modalities})


@pytest.fixture(scope="module")
def reader(packed) -> SideReader:
    return reader_of(packed)


@pytest.fixture(scope="module")
def kinds(packed) -> dict[str, int]:
    """An item without a picture, one without a title, and one with both."""
    image, text = (packed.by_modality[name].present[:40] for name in ("image", "text"))
    return {
        "text": int(np.flatnonzero(~image)[0]),
        "image": int(np.flatnonzero(~text)[0]),
        "both": int(np.flatnonzero(image & text)[0]),
    }


@pytest.fixture
def rows(packed, kinds) -> np.ndarray:
    """Eight rows: items of every kind, nothing, and searches."""
    searches = packed.num_items + np.arange(3)
    return np.array([kinds["both"], -1, kinds["text"], kinds["image"], -1, *searches])


def test_each_input_is_that_of_its_row_and_the_rest_is_missing(packed, reader, rows):
    side, counts = reader.side(rows)
    assert side.num_rows == 8
    for name, contents in packed.by_modality.items():
        has = [row >= 0 and bool(contents.present[row]) for row in rows]
        assert side.mask[name].tolist() == has
        assert side.rows[name].tolist() == [i for i in range(8) if has[i]]
        expected = [contents.content[row] if h else -1 for row, h in zip(rows, has, strict=True)]
        assert side.ids[name].tolist() == expected
    pictures = packed.by_modality["image"].pictures(rows[side.rows["image"]])
    assert torch.equal(side.inputs["image"], decode_images(pictures, SIZE)[0])
    texts = packed.by_modality["text"].texts(rows[side.rows["text"]])
    assert side.inputs["text"]["length"].flatten().tolist() == [len(text) for text in texts]
    assert counts.tolist() == [len(pictures), 0]


def test_fused_ids_are_equal_where_picture_and_text_are(packed, reader, rows):
    fused = reader.side(np.concatenate([rows, rows]))[0].ids["fused"].tolist()
    assert fused[:8] == fused[8:]
    assert [i for i in fused if i == -1] == [-1] * 4
    assert len(set(fused)) == 7
    side, _ = reader.side(np.arange(packed.num_items + packed.num_searches))
    both = list(zip(side.ids["image"].tolist(), side.ids["text"].tolist(), strict=True))
    assert len(set(side.ids["fused"].tolist())) == len(set(both))


def test_rows_of_nothing_have_a_filler_that_belongs_to_no_row(reader):
    for rows in (np.array([-1, -1]), np.empty(0, dtype=np.int64)):
        side, counts = reader.side(rows)
        assert side.num_rows == len(rows)
        assert side.inputs["image"].shape == (1, 3, SIZE, SIZE)
        assert side.inputs["text"]["length"].tolist() == [[1]]
        for name in ("image", "text"):
            assert side.rows[name].tolist() == [len(rows)]
            assert side.mask[name].tolist() == [False] * len(rows)
        assert all(ids.tolist() == [-1] * len(rows) for ids in side.ids.values())
        assert {ids.dtype for ids in (*side.ids.values(), *side.rows.values())} == {torch.int64}
        assert counts.tolist() == [0, 0]


def test_one_modality_has_one_space(packed, kinds):
    side, counts = reader_of(packed, ["text"]).side(np.array([kinds["image"], kinds["text"]]))
    assert set(side.ids) == set(side.mask) == set(side.inputs) == {"text"}
    assert side.mask["text"].tolist() == [False, True]
    assert counts.tolist() == [0, 0]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory) -> PackedContent:
    """Items 0 and 1 in order of the file have pictures that cannot be decoded."""
    folder = tmp_path_factory.mktemp("spoilt")
    data = write_search_data(folder / "data", items=12, searches=10)
    file = data / "items" / "part-0.parquet"
    items = pq.read_table(file)
    pq.write_table(spoil(items, [0, 1]), file)
    pack(data, folder / "packed")
    return PackedContent.open(folder / "packed")


def test_a_picture_that_cannot_be_decoded_is_missing_and_counted(spoilt):
    whole = spoilt.by_modality["image"]
    rows = np.arange(12)
    _, ok = decode_images(whole.pictures(rows[whole.present[:12]]), SIZE)
    bad = rows[whole.present[:12]][~ok]
    side, counts = reader_of(spoilt).side(rows)
    assert len(bad) == 2 and counts.tolist() == [11, 2]
    without = [*bad, *np.flatnonzero(~whole.present[:12])]
    assert np.flatnonzero(~side.mask["image"]).tolist() == sorted(without)
    assert (side.ids["image"][bad] == -1).all() and (side.ids["fused"][bad] >= 0).all()
    given = side.rows["image"].tolist()
    assert given.count(12) == 2 and not set(bad) & set(given)


def test_a_row_with_nothing_but_a_spoilt_picture_is_nothing(spoilt):
    reader = reader_of(spoilt, ["image"])
    side, _ = reader.side(np.arange(12))
    assert (side.ids["image"] >= 0).equal(side.mask["image"]) and side.mask["image"].sum() == 9


def test_pictures_change_by_their_seeds_alone(reader, rows):
    plain = reader.side(rows)[0]
    one, again = (reader.side(rows, SEEDS)[0].inputs["image"] for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, plain.inputs["image"])
    other = reader.side(rows, SEEDS + (SEEDS == 0))[0].inputs["image"]
    assert not torch.equal(one[0], other[0]) and torch.equal(one[1:], other[1:])
    augmented = reader.side(rows, SEEDS)[0]
    for name in ("rows", "mask", "ids"):
        for key, value in getattr(plain, name).items():
            assert torch.equal(value, getattr(augmented, name)[key])
    alone = reader.side(rows[5:6], SEEDS[5:6])[0].inputs["image"][0]
    place = plain.rows["image"].tolist().index(5)
    assert torch.equal(alone, one[place])


def test_features_stand_in_for_pictures_and_are_not_counted_as_read(packed, reader, rows):
    contents = packed.by_modality["image"]
    distinct = len(set(contents.content.tolist()) - {-1})
    values = np.random.default_rng(0).normal(size=(distinct, 5)).astype(np.float32)
    order = {c: i for i, c in enumerate(sorted(set(contents.content.tolist()) - {-1}))}
    place = np.array([order.get(content, -1) for content in contents.content])
    ok = np.ones(distinct, dtype=bool)
    ok[place[rows[0]]] = False
    source = FeatureSource(Features(values, place, ok))
    cached = replace(reader, sources=reader.sources | {"image": source})
    side, counts = cached.side(rows)
    plain, _ = reader.side(rows)
    first = plain.rows["image"] == 0
    assert torch.equal(side.rows["image"], plain.rows["image"].masked_fill(first, 8))
    of_rows = values[place[rows[plain.rows["image"]]]]
    assert torch.equal(side.inputs["image"], torch.from_numpy(of_rows))
    assert not side.mask["image"][0] and side.ids["image"][0] == -1
    assert counts.tolist() == [0, 0]
    assert source.filler().shape == (1, 5)


def test_a_reader_survives_the_way_to_another_process(reader, rows):
    sent = pickle.loads(pickle.dumps(reader))
    first, second = (each.side(rows)[0] for each in (reader, sent))
    assert torch.equal(first.inputs["image"], second.inputs["image"])
    assert torch.equal(first.ids["fused"], second.ids["fused"])
