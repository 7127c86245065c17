"""items/ and searches/ to packed content: against plain Python, streamed, refused by name."""

import tracemalloc
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.content.content_folders import ITEMS, SEARCH, SEARCHES, write_data
from torchrec_mm.columns import chunks
from torchrec_mm.data.content.content_writer import ContentWriter
from torchrec_mm.data.content.pack import pack
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.data.contract.features import NULL
from torchrec_mm.errors import InputError

BOTH = ("image", "text")


def packed(data: Path, modalities=BOTH, name="packed") -> PackedContent:
    pack(data, data / name, modalities)
    return PackedContent.open(data / name)


def random_rows(seed: int) -> tuple[list[dict], list[dict]]:
    """40 items and 70 searches with few distinct contents, and everything that may be missing."""
    generator = np.random.default_rng(seed)

    def content(text: str, image: str) -> dict:
        row = {text: f"wörd {generator.integers(25)}", image: bytes([generator.integers(25)]) * 9}
        match generator.integers(5):
            case 0:
                row[text] = generator.choice([None, "", " \t"])
            case 1:
                row[image] = None
            case 2:
                row |= {image: None, f"{image}_path": f"shots/{generator.integers(9)}.jpg"}
            case 3:
                row[f"{image}_path"] = "unused"
        return row

    ids = generator.permutation(np.arange(40) * 3 - 50).tolist()
    items = [{"item_id": i, "category": i % 4} | content("title", "image") for i in ids]
    searches = [
        {
            "search_id": int(search),
            "user_id": 1,
            "timestamp": int(generator.integers(20)),
            "purchased_item_id": int(generator.choice(ids)),
            "clicked_item_ids": generator.choice(ids, generator.integers(12)).tolist(),
        }
        | content("query_text", "query_image")
        for search in generator.permutation(70)
    ]
    return items, searches


def content_of(row: dict, text: str, image: str, folder: Path) -> dict[str, str | bytes | Path]:
    """What a row holds, by plain rules."""
    found = {}
    if row[text] and row[text].strip():
        found["text"] = row[text]
    if row[image] is not None:
        found["image"] = row[image]
    elif row.get(f"{image}_path") is not None:
        found["image"] = folder.absolute() / row[f"{image}_path"]
    return found


@pytest.mark.parametrize("modalities", [BOTH, ("image",), ("text",)])
@pytest.mark.parametrize(("files", "chunk_bytes"), [(1, 1 << 20), (3, 200)])
def test_packed_content_is_what_plain_python_says(
    tmp_path, monkeypatch, modalities, files, chunk_bytes
):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", chunk_bytes)
    items, searches = random_rows(seed=files)
    write_data(tmp_path, items, searches, files, row_group_rows=7)
    found = packed(tmp_path, modalities)

    items.sort(key=lambda item: item["item_id"])
    searches.sort(key=lambda search: (search["timestamp"], search["search_id"]))
    row_of = {item["item_id"]: row for row, item in enumerate(items)}
    assert found.item_ids.tolist() == list(row_of)
    assert {name: column.tolist() for name, column in found.attributes.items()} == {
        "category": [item["category"] for item in items]
    }
    assert found.search_ids.tolist() == [search["search_id"] for search in searches]
    assert found.timestamps.tolist() == [search["timestamp"] for search in searches]
    bought = [search["purchased_item_id"] for search in searches]
    assert found.purchased.tolist() == [row_of[item] for item in bought]
    clicked = [
        [row_of[item] for item in search["clicked_item_ids"] if item != purchase][:8]
        for search, purchase in zip(searches, bought, strict=True)
    ]
    assert found.hard.tolist() == [rows + [-1] * (8 - len(rows)) for rows in clicked]

    contents = [content_of(row, "title", "image", tmp_path / "items") for row in items] + [
        content_of(row, "query_text", "query_image", tmp_path / "searches") for row in searches
    ]
    assert list(found.by_modality) == list(modalities)
    for modality, column in found.by_modality.items():
        values = [content.get(modality) for content in contents]
        first: dict = {}
        expected = [-1 if v is None else first.setdefault(v, row) for row, v in enumerate(values)]
        assert column.content.tolist() == expected
        assert column.present.tolist() == [value is not None for value in values]
        rows = np.flatnonzero(column.present)[::-1]
        read = column.texts if modality == "text" else column.pictures
        assert read(rows) == [values[row] for row in rows]
        assert read(column.content[rows]) == [values[row] for row in rows]
        sizes = [len(str(v).encode() if isinstance(v, str | Path) else v or "") for v in values]
        assert column.lengths[rows].tolist() == [sizes[row] for row in rows]


def test_size_of_files_and_pieces_and_their_order_change_nothing_but_places(tmp_path, monkeypatch):
    items, searches = random_rows(seed=1)
    one = packed(write_data(tmp_path / "data", items, searches))
    (tmp_path / "data").rename(tmp_path / "before")
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 100)
    many = packed(write_data(tmp_path / "data", items[::-1], searches[::-1], 4, row_group_rows=3))
    assert many.fingerprint == one.fingerprint
    assert many.hard.tolist() == one.hard.tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda items, searches: items[1].update(title="other"),
        lambda items, searches: items[1].update(item_id=-4),
        lambda items, searches: items[1].update(category=3),
        lambda items, searches: searches[1].update(query_image=b"other"),
        lambda items, searches: searches[1].update(timestamp=6),
        lambda items, searches: searches[1].update(clicked_item_ids=[30]),
        lambda items, searches: searches[1].update(purchased_item_id=30),
    ],
)
def test_the_fingerprint_tells_apart_whatever_differs(tmp_path, change):
    items, searches = [dict(item) for item in ITEMS], [dict(search) for search in SEARCHES]
    searches[2]["clicked_item_ids"] = []
    before = packed(write_data(tmp_path / "a", items, searches)).fingerprint
    change(items, searches)
    assert packed(write_data(tmp_path / "b", items, searches)).fingerprint != before


def peak_bytes(data: Path) -> int:
    """The most memory that Python held, and Arrow at any piece, while packing."""
    held, add = [], ContentWriter.add

    def watched(*arguments):
        held.append(pa.total_allocated_bytes())
        return add(*arguments)

    tracemalloc.start()
    with mock.patch.object(ContentWriter, "add", watched):
        pack(data, data / "packed", ("image",))
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return max(held) + python


def test_memory_does_not_grow_with_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1 << 20)
    generator = np.random.default_rng(0)
    peaks = []
    for name, number in (("small", 200), ("large", 800)):
        pictures = [generator.bytes(30_000) for _ in range(number)]
        items = [{"item_id": i, "category": 0, "image": each} for i, each in enumerate(pictures)]
        searches = [SEARCH | {"search_id": 1, "timestamp": 1, "clicked_item_ids": []}]
        peaks.append(peak_bytes(write_data(tmp_path / name, items, searches)))
    assert peaks[1] < 1.3 * peaks[0]
    assert peaks[1] < 800 * 30_000 / 2


def test_what_was_bought_is_not_its_own_hard_negative(tmp_path):
    bought = SEARCH | {"purchased_item_id": -5, "clicked_item_ids": [-5, 30, -5, 7]}
    searches = [bought | {"search_id": 1, "timestamp": 1}]
    assert packed(write_data(tmp_path, searches=searches)).hard.tolist() == [[2, 1]]


def test_searches_without_any_click_have_no_slots(tmp_path):
    searches = [search | {"clicked_item_ids": []} for search in SEARCHES]
    assert packed(write_data(tmp_path, searches=searches)).hard.shape == (3, 0)


def test_pictures_in_files_are_found_from_any_working_directory(tmp_path, monkeypatch):
    items = [item | {"image": None, "image_path": f"shots/{item['title']}.jpg"} for item in ITEMS]
    write_data(tmp_path / "data", items)
    (tmp_path / "data" / "items" / "shots").mkdir()
    (tmp_path / "data" / "items" / "shots" / "a.jpg").write_bytes(b"1")
    (tmp_path / "data" / "searches" / "b.png").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    found = packed(Path("data"))
    monkeypatch.chdir("/")
    images = PackedContent.open(tmp_path / "data" / "packed").by_modality["image"]
    (path,) = images.pictures(np.array([0]))
    assert path.read_bytes() == b"1"
    assert found.by_modality["image"].present.all()  # two of the files are not there


def test_a_path_is_not_a_picture_of_the_same_bytes(tmp_path):
    path = bytes(tmp_path.absolute() / "items" / "a.jpg")
    items = [
        {"item_id": 1, "category": 0, "image": path},
        {"item_id": 2, "category": 0, "image_path": "a.jpg"},
        {"item_id": 7, "category": 0, "image_path": str(tmp_path.absolute() / "items" / "a.jpg")},
        {"item_id": 30, "category": 0, "image": path},
    ]
    searches = SEARCHES[:1]
    content = packed(write_data(tmp_path, items, searches), ("image",)).by_modality["image"].content
    assert content.tolist() == [0, 1, 1, 0, 4]


def test_columns_of_one_kind_and_other_width_are_taken(tmp_path):
    write_data(
        tmp_path,
        title=pa.array(["c", "a", "b"], pa.large_string()).dictionary_encode(),
        image=pa.array([b"3", b"1", b"2"], pa.large_binary()),
        item_id=pa.array([30, -5, 7], pa.int8()),
        clicked_item_ids=pa.array([[30], [], [30, -5]], pa.large_list(pa.int32())),
    )
    found = packed(tmp_path)
    assert found.by_modality["text"].texts(np.arange(3)) == ["a", "b", "c"]
    assert found.by_modality["image"].pictures(np.arange(3)) == [b"1", b"2", b"3"]
    assert found.hard.tolist() == [[2, 0], [-1, -1], [2, -1]]


TWICE = [ITEMS[0], ITEMS[1], ITEMS[0]]
BARE = [ITEMS[0], ITEMS[1] | {"title": " ", "image": None}, ITEMS[2]]
BROKEN = pa.Array.from_buffers(pa.string(), 3, pa.array([b"c", b"\xff", b"b"]).buffers())


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"items": TWICE}, "items column item_id must be unique, got 30"),
        ({"items": BARE}, "columns image and title must not both be null, got item_id -5"),
        ({"items": []}, "items must hold at least one row, got 0"),
        ({"item_id": None}, "items must have a column item_id, got title"),
        ({"image": None}, "image must hold a value for --modality image, got none in 3 rows"),
        ({"title": [[1], [2], [3]]}, "items/part-0.parquet column title must be string, got list"),
        ({"title": BROKEN}, "row group 0 from row 0 column title must be UTF-8 text: .*index 1"),
        (
            {"category": [b"0", b"1", b"2"]},
            "category must be int64 or bool or string or double or list<int64> or ",
        ),
        ({"image": ["a", "b", "c"]}, "column image must be binary, got string"),
        ({"category": [1, NULL, 2]}, f"row 0 column category must not hold {NULL}, the id of null"),
        ({"searches": []}, "searches must hold at least one row, got 0"),
        ({"clicked_item_ids": None}, "searches must have a column clicked_item_ids"),
        ({"searches": SEARCHES[:1] * 2}, "searches column search_id must be unique, got 5"),
        ({"purchased_item_id": [7, 31, 7]}, "purchased_item_id must be in items/, got 31"),
        ({"clicked_item_ids": [[7], [], [8]]}, "clicked_item_ids must be in items/, got 8"),
        ({"clicked_item_ids": [[7], None, [7]]}, "clicked_item_ids must not be null"),
        ({"clicked_item_ids": [[7], [None], [7]]}, "clicked_item_ids must not hold nulls"),
        ({"timestamp": ["now", "then", "once"]}, "timestamp must be int64"),
        ({"timestamp": [7, 10**18, 9]}, "row group 0 from row 0 column timestamp must be seconds"),
        (
            {"query_text": ["a", None, "b"], "query_image": [b"1", None, b"2"]},
            "columns query_image and query_text must not both be null, got search_id 4",
        ),
    ],
)
def test_bad_data_is_refused_by_column_and_value_and_leaves_nothing(tmp_path, given, complaint):
    write_data(tmp_path / "data", **given)
    with pytest.raises(InputError, match=complaint):
        packed(tmp_path / "data")
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["items", "searches"]


def test_a_search_has_no_further_columns(tmp_path):
    write_data(tmp_path)
    file = tmp_path / "searches" / "part-0.parquet"
    pq.write_table(pq.read_table(file).append_column("place", pa.array([1, 2, 3])), file)
    with pytest.raises(InputError, match="part-0.parquet column place must be left out, got int64"):
        packed(tmp_path)


def test_an_item_may_lack_what_is_not_wanted(tmp_path):
    write_data(tmp_path, BARE)
    assert packed(tmp_path, ("text",)).by_modality["text"].present[:3].tolist() == [
        False,
        True,
        True,
    ]


def test_searches_may_all_lack_one_of_two_modalities_but_not_the_only_one(tmp_path):
    write_data(tmp_path, query_image=None)
    images = packed(tmp_path).by_modality["image"]
    assert images.present.tolist() == [True] * 3 + [False] * 3
    with pytest.raises(InputError, match="column query_image must hold a value for --modality"):
        packed(tmp_path, ("image",), "images")


def test_a_missing_or_garbled_folder_is_named(tmp_path):
    write_data(tmp_path)
    file = tmp_path / "searches" / "part-0.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"part-0\.parquet must be a readable Parquet file"):
        packed(tmp_path)
    file.unlink()
    with pytest.raises(InputError, match="searches must hold at least one .parquet file"):
        packed(tmp_path)
    file.parent.rmdir()
    with pytest.raises(InputError, match="searches must be a folder of Parquet files"):
        packed(tmp_path)
