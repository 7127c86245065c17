"""Tier histograms and the gallery, on vectors small enough to check by hand."""

import base64
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.reporting.made_up import picture, put_data, put_vectors
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.reporting import tiers
from torchrec_mm.reporting.gallery import gallery
from torchrec_mm.reporting.tiers import NUM_TIERS, tier_histogram

EAST, NORTH, WEST = (1, 0), (0, 1), (-1, 0)
INT64S, INT8S = pa.list_(pa.int64()), pa.list_(pa.int8())


def opened(folder, vectors):
    put_vectors(folder, np.array(vectors))
    return ItemVectors.open(folder)


def test_clicked_and_other_impressions_are_histogrammed_apart(tmp_path):
    put_data(tmp_path / "d", ["a", "b"], [None, None])
    histogram = tier_histogram(tmp_path / "d", opened(tmp_path / "v", [EAST, WEST]))
    assert histogram.clicked[-1] == 1 and histogram.clicked.sum() == 1
    assert histogram.others[0] == 1 and histogram.others.sum() == 1
    assert (histogram.clicked_impressions, histogram.other_impressions) == (2, 2)


def test_shares_are_the_mean_over_impressions_by_a_plain_loop(tmp_path):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(30, 4))
    vectors = opened(tmp_path / "v", values)
    unit = np.asarray(vectors.values)
    test = tmp_path / "d" / "requests" / "test"
    test.mkdir(parents=True)
    requests = [
        (
            generator.integers(0, 40, generator.integers(0, 9)).tolist(),
            (candidates := generator.integers(0, 40, generator.integers(1, 6)).tolist()),
            generator.integers(0, 2, len(candidates)).tolist(),
        )
        for _ in range(120)
    ]
    names = ("behaviour_item_ids", "candidate_item_ids", "labels")
    kinds = (pa.list_(pa.int64()), pa.list_(pa.int64()), pa.list_(pa.int8()))
    columns = {
        name: pa.array([request[place] for request in requests], kind)
        for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
    pq.write_table(pa.table(columns), test / "part.parquet")

    shares = {0: [], 1: []}
    for behaviours, candidates, labels in requests:
        known = [item for item in behaviours if item < 30]
        for target, label in zip(candidates, labels, strict=True):
            if target < 30 and known:
                tiers = [int((unit[target] @ unit[item] + 1) / 2 * NUM_TIERS) for item in known]
                tiers = np.minimum(tiers, NUM_TIERS - 1)
                shares[label].append(np.bincount(tiers, minlength=NUM_TIERS) / len(known))
    found = tier_histogram(tmp_path / "d", vectors)
    assert found.clicked_impressions == len(shares[1])
    assert np.allclose(found.clicked, np.mean(shares[1], axis=0), atol=1e-6)
    assert np.allclose(found.others, np.mean(shares[0], axis=0), atol=1e-6)


def test_requests_without_any_vector_give_an_empty_histogram(tmp_path):
    put_data(tmp_path / "d", ["a", "b"], [None, None])
    pq.write_table(
        pa.table(
            {
                "user_id": [1],
                "behaviour_item_ids": pa.array([[]], pa.list_(pa.int64())),
                "candidate_item_ids": [[0]],
                "labels": pa.array([[1]], pa.list_(pa.int8())),
            }
        ),
        tmp_path / "d" / "requests" / "test" / "part.parquet",
    )
    histogram = tier_histogram(tmp_path / "d", opened(tmp_path / "v", [EAST, WEST]))
    assert histogram.clicked_impressions == 0
    assert histogram.clicked.sum() == 0


def test_the_first_requests_of_all_files_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(tiers, "MAX_REQUESTS", 5)
    put_data(tmp_path / "d", ["a", "b"], [None, None])
    lists = {"behaviour_item_ids": INT64S, "candidate_item_ids": INT64S, "labels": INT8S}
    folder = tmp_path / "d" / "requests" / "test"
    for name, label in (("part", 1), ("second", 0)):
        columns = {n: pa.array([[0]] * 3, kind) for n, kind in lists.items()}
        columns["labels"] = pa.array([[label]] * 3, INT8S)
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    histogram = tier_histogram(tmp_path / "d", opened(tmp_path / "v", [EAST, WEST]))
    assert (histogram.clicked_impressions, histogram.other_impressions) == (3, 2)


def test_neighbours_are_the_nearest_by_cosine_without_the_item_itself(tmp_path):
    generator = np.random.default_rng(0)
    vectors = opened(tmp_path / "v", generator.normal(size=(30, 4)))
    put_data(tmp_path / "d", [f"item {i}" for i in range(30)], [None] * 30)
    rows = gallery(tmp_path / "d", {"SCL": vectors})
    cosine = np.asarray(vectors.values) @ np.asarray(vectors.values).T
    np.fill_diagonal(cosine, -2)
    assert [row.item.item_id for row in rows] == [1, 5, 9, 13, 16, 20, 24, 28]
    for row in rows:
        expected = np.argsort(-cosine[row.item.item_id])[:5]
        found = row.neighbours["SCL"]
        assert [tile.item_id for tile in found] == expected.tolist()
        assert [tile.title for tile in found] == [f"item {i}" for i in expected]
        assert found[0].cosine == pytest.approx(cosine[row.item.item_id].max(), abs=1e-6)


def test_pictures_become_small_jpegs_of_the_same_proportions(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    put_data(tmp_path / "d", ["wide", "tall", "broken"], [
        picture(size=(400, 200)), picture(size=(400, 100), exif=turned), b"not a picture",
    ])  # fmt: skip
    rows = gallery(tmp_path / "d", {"SCL": opened(tmp_path / "v", [EAST, NORTH, WEST])})
    sizes = []
    for row in rows[:2]:
        encoded = base64.b64decode(row.item.picture.removeprefix("data:image/jpeg;base64,"))
        sizes.append(Image.open(io.BytesIO(encoded)).size)
    assert sizes == [(112, 56), (28, 112)]
    assert rows[2].item.picture is None


def test_pictures_named_by_path_are_found_beside_the_items(tmp_path):
    put_data(tmp_path / "d", ["a", "b"], [None, None])
    items = tmp_path / "d" / "items"
    (items / "a.png").write_bytes(picture())
    table = {"item_id": [0, 1], "title": ["a", None], "image_path": ["a.png", "missing.png"]}
    pq.write_table(pa.table(table), items / "part.parquet")
    rows = gallery(tmp_path / "d", {"SCL": opened(tmp_path / "v", [EAST, NORTH])})
    assert rows[0].item.picture.startswith("data:image/jpeg")
    assert (rows[1].item.picture, rows[1].item.title) == (None, "")


def test_vectors_of_other_items_give_an_empty_gallery(tmp_path):
    put_data(tmp_path / "d", ["a"], [None])
    vectors = opened(tmp_path / "v", [EAST, NORTH])
    vectors._index = type(vectors._index)(np.array([7, 8]))
    vectors.item_ids = np.array([7, 8])
    assert gallery(tmp_path / "d", {"SCL": vectors}) == []
