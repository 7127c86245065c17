"""python -m apps.make_market, run on small markets."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from apps.make_market import main
from tests.helpers.request_folders import contents, read_requests
from torchrec_mm.data.content.pack import pack
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.errors import InputError
from torchrec_mm.simulation.market.catalogue import DAY_S, START

SMALL = ["--items=300", "--users=40", "--impressions=3000", "--searches=200", "--image_size=16"]
TINY = ["--users=20", "--impressions=500", "--searches=40", "--image_size=16", "--processes=1"]


def make(run_dir: Path, *flags: str) -> Path:
    main([f"--run_dir={run_dir}", *flags])
    return run_dir


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make(tmp_path_factory.mktemp("market") / "data", *SMALL, "--processes=1")


def test_the_folders_are_those_of_the_contract(data, tmp_path):
    items = read_items(data)
    assert len(items) == 300
    assert set(items.attributes) == {"category", "brand"}
    pack(data, tmp_path / "packed")
    packed = PackedContent.open(tmp_path / "packed")
    assert packed.item_ids.tolist() == items.item_ids.tolist() and packed.num_searches == 200
    train, test = (read_requests(data / "requests" / split, 50) for split in ("train", "test"))
    assert train.num_impressions + test.num_impressions == 3000
    assert set(train.features) == {"age_band", "hour"}
    test_start = START + (12 - 2) * DAY_S
    assert train.timestamps.max() < test_start <= test.timestamps.min() < test_start + DAY_S
    for requests in (train, test):
        assert requests.features["hour"].tolist() == (requests.timestamps % DAY_S // 3600).tolist()
        assert (items.index.rows(requests.candidates.values) >= 0).all()
    searches = pq.read_table(data / "searches")
    assert searches.num_rows == 200
    assert searches["clicked_item_ids"].type == pa.list_(pa.int64())
    assert (items.index.rows(searches["purchased_item_id"].to_numpy()) >= 0).all()
    clicked = searches["clicked_item_ids"].combine_chunks().flatten().to_numpy()
    assert (items.index.rows(clicked) >= 0).all()


def test_no_behaviour_is_as_late_as_its_request(data):
    """Every behaviour beyond the warm-up was clicked on an earlier request; by plain loops."""
    rows = [
        row
        for split in ("train", "test")
        for row in pq.read_table(data / "requests" / split).to_pylist()
    ]
    rows.sort(key=lambda row: row["timestamp"])
    first = {}
    for row in rows:
        first.setdefault(row["user_id"], row)
    for row in rows:
        user, now = row["user_id"], row["timestamp"]
        clicked = [
            item
            for other in rows
            if other["user_id"] == user and other["timestamp"] < now
            for item, label in zip(other["candidate_item_ids"], other["labels"], strict=True)
            if label
        ]
        expected = first[user]["behaviour_item_ids"] + clicked
        assert row["behaviour_item_ids"] == expected[-50:]


def test_what_was_shown_earlier_and_not_clicked_is_a_sequence_where_that_is_asked_for(
    data, tmp_path
):
    passed = make(tmp_path / "passed", *SMALL, "--processes=1", "--passed=true", "--behaviours=7")
    rows = [
        row
        for split in ("train", "test")
        for row in pq.read_table(passed / "requests" / split).to_pylist()
    ]
    seen: dict[int, list[tuple[int, int]]] = {}
    for row in sorted(rows, key=lambda row: row["timestamp"]):
        of_user = seen.setdefault(row["user_id"], [])
        earlier = [item for time, item in of_user if time < row["timestamp"]]
        assert row["passed_item_ids"] == earlier[-7:]
        shown = zip(row["candidate_item_ids"], row["labels"], strict=True)
        of_user += [(row["timestamp"], item) for item, label in shown if not label]
    assert max(map(len, seen.values())) > 7
    assert "passed_item_ids" not in pq.read_table(data / "requests" / "train").column_names


def test_the_same_seed_gives_the_same_bytes_however_many_processes(data, tmp_path):
    again = make(tmp_path / "again", *SMALL, "--processes=2")
    assert contents(again) == contents(data)


def test_another_seed_gives_other_files(data, tmp_path):
    other = contents(make(tmp_path / "other", *SMALL, "--processes=1", "--seed=1"))
    assert not set(other.values()) & set(contents(data).values())


def test_what_can_be_reached_is_written_beside_the_data(data):
    figures = json.loads((data / "market.json").read_text())
    assert figures["simulated"] is True
    assert figures["impressions"] == 3000
    reach = figures["test_ceilings"]
    assert reach["oracle"]["auc"] > reach["taste"]["auc"] > 0.55
    assert sum(
        share for name, share in figures["test_shares"].items() if name.startswith("item_freq")
    ) == pytest.approx(1)


def test_shares_of_the_test_days_are_by_how_often_training_showed_the_item(data):
    shown = {
        split: sum(pq.read_table(data / "requests" / split)["candidate_item_ids"].to_pylist(), [])
        for split in ("train", "test")
    }
    in_training = Counter(shown["train"])
    seen = [in_training[item] for item in shown["test"]]
    shares = json.loads((data / "market.json").read_text())["test_shares"]
    for name, low, high in (("0", 0, 0), ("1-5", 1, 5), ("6-20", 6, 20), ("21-100", 21, 100)):
        share = sum(low <= count <= high for count in seen) / len(seen)
        assert shares[f"item_frequency/{name}"] == pytest.approx(share), name
    assert 0 < shares["item_frequency/0"] < 1


def picture(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), (shade, 255 - shade, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def write_catalogue(folder: Path, number=60, **changes) -> Path:
    """A catalogue with pictures both in the table and in files."""
    (folder / "items").mkdir(parents=True)
    (folder / "items" / "loose.png").write_bytes(picture(7))
    columns = {
        "item_id": [-5 * n for n in range(number)],
        "title": [None if n % 9 == 0 else f"Blue shoe number {n}" for n in range(number)],
        "image": [None if n % 7 == 0 else picture(n) for n in range(number)],
        "image_path": ["loose.png" if n % 14 == 0 else None for n in range(number)],
        "kind": [n % 3 for n in range(number)],
        "shade": [n // 3 % 5 for n in range(number)],
    }
    table = pa.table({k: v for k, v in (columns | changes).items() if v is not None})
    pq.write_table(table, folder / "items" / "a.parquet")
    return folder


def test_a_given_catalogue_keeps_its_items_and_one_coarse_column(tmp_path):
    given = write_catalogue(tmp_path / "given")
    data = make(tmp_path / "data", f"--data={given}", *TINY, "--category_column=shade")
    before = {row["item_id"]: row for row in pq.read_table(given / "items/a.parquet").to_pylist()}
    after = {row["item_id"]: row for row in pq.read_table(data / "items").to_pylist()}
    assert set(after) == set(before)
    for item_id, row in after.items():
        assert row["title"] == before[item_id]["title"]
        assert row["shade"] == before[item_id]["shade"]
        assert "kind" not in row
        from_file = before[item_id]["image_path"] is not None
        assert row["image"] == (picture(7) if from_file else before[item_id]["image"])


def test_query_photos_of_a_given_catalogue_are_other_pictures_of_the_bought_item(tmp_path):
    given = write_catalogue(tmp_path / "given")
    data = make(tmp_path / "data", f"--data={given}", *TINY)
    pictures = {row["item_id"]: row["image"] for row in pq.read_table(data / "items").to_pylist()}
    searches = pq.read_table(data / "searches").to_pylist()
    photos = [row for row in searches if row["query_image"] is not None]
    assert len(photos) > 10
    for row in photos:
        photo = Image.open(io.BytesIO(row["query_image"]))
        assert photo.size == (16, 16)
        green = np.asarray(photo, dtype=float)[5:11, 5:11, 1].mean()
        bought = Image.open(io.BytesIO(pictures[row["purchased_item_id"]])).getpixel((3, 3))
        assert abs(green - bought[1]) < 130
    assert all(row["query_text"] or row["query_image"] for row in searches)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--items=5"], "items must be at least 100, got 5"),
        (["--days=3", "--test_days=3"], "test_days must be below days = 3, got 3"),
        (["--seed=-1"], "seed must be at least 0, got -1"),
        (["--data=nowhere"], "nowhere/items must be a folder"),
        (["--category_column=kind"], "category_column needs --data"),
        (["--items=100", "--impressions=1"], "impressions must be enough .*, got 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(tmp_path, flags, complaint):
    with pytest.raises(InputError, match=complaint):
        make(tmp_path / "data", *TINY, *flags)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"title": ["  "] * 60}, "title and image must not both be null, got item_id"),
        ({"item_id": [1] * 60}, "item_id must be unique, got 1"),
        ({"kind": None, "shade": None}, "must have an attribute column"),
        ({"image": [b"junk"] * 60}, "image must be a JPEG, PNG or WebP"),
        ({"image_path": ["gone.png"] * 60, "image": None}, "image_path must name readable files"),
    ],
)
def test_a_bad_catalogue_is_refused_and_nothing_is_left_behind(tmp_path, changes, complaint):
    given = write_catalogue(tmp_path / "given", **changes)
    with pytest.raises(InputError, match=complaint):
        make(tmp_path / "data", f"--data={given}", *TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_an_existing_folder_is_refused(data):
    before = contents(data)
    with pytest.raises(InputError, match="exists already"):
        make(data, *SMALL)
    assert contents(data) == before
