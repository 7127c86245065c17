"""The FAISS index finds most of what exact search finds; a folder that is not right is refused."""

import json
import sys

import numpy as np
import pytest

from tests.item_vectors.test_neighbours import written
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors import faiss_index, writer
from torchrec_mm.item_vectors.faiss_index import FaissIndex
from torchrec_mm.item_vectors.neighbours import Neighbours, neighbours_of


def clustered(items: int, width: int, clusters: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(clusters, width))
    return centres[generator.integers(0, clusters, items)] + generator.normal(size=(items, width))


@pytest.fixture(scope="module", params=["int8", "float32"])
def vectors(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clustered") / request.param
    count = faiss_index.FLAT_ITEMS + 1
    return written(folder, np.arange(count) * 3, clustered(count, 32, 50), request.param)


@pytest.fixture(scope="module")
def index(vectors):
    return FaissIndex.build(vectors)


@pytest.fixture
def small(tmp_path):
    return written(tmp_path / "small", np.arange(60) - 9, clustered(60, 8, 4))


def test_nine_in_ten_neighbours_are_found_and_their_cosines_are_exact(vectors, index):
    assert index.meta.lists == 693
    queries = np.asarray(vectors.item_ids[:3000:15])
    exact = neighbours_of(Neighbours(vectors), queries, 10)
    found = neighbours_of(index, queries, 10)
    pairs = zip(exact.rows, found.rows, strict=True)
    recall = np.mean([len(np.intersect1d(*pair)) for pair in pairs]) / 10
    assert recall >= 0.9
    assert not (vectors.item_ids[found.rows] == queries[:, None]).any()
    same = exact.rows[:, 0] == found.rows[:, 0]
    assert np.array_equal(exact.cosines[same, 0], found.cosines[same, 0])
    assert (np.diff(found.cosines) <= 0).all()


def test_an_index_from_disk_finds_what_it_found_in_memory(vectors, index, tmp_path):
    index.save(tmp_path / "index")
    opened = FaissIndex.open(tmp_path / "index", vectors)
    queries = np.asarray(vectors.item_ids[::1000])
    before, after = (neighbours_of(each, queries, 7) for each in (index, opened))
    assert np.array_equal(before.rows, after.rows)
    assert np.array_equal(before.cosines, after.cosines)


def test_centres_are_learnt_from_items_of_all_ids(small):
    sample = faiss_index.unit_sample(small, 20)
    (rows,) = zip(*Neighbours(small).search(sample, 1).rows.tolist(), strict=True)
    assert len(set(rows)) == 20 and min(rows) < 20 and max(rows) >= 40


def test_an_index_is_the_same_each_time_it_is_built(vectors, index):
    again = FaissIndex.build(vectors)
    queries = np.random.default_rng(3).normal(size=(50, 32))
    assert np.array_equal(again.search(queries, 20).rows, index.search(queries, 20).rows)


@pytest.mark.parametrize("block_values", [100, 1 << 22])
def test_among_few_items_all_neighbours_are_found_and_empty_slots_stay_empty(
    small, monkeypatch, block_values
):
    monkeypatch.setattr(writer, "BLOCK_VALUES", block_values)
    index = FaissIndex.build(small)
    assert index.meta.lists == 0
    for k in (5, 59, 80):
        exact, found = (neighbours_of(s, small.item_ids, k) for s in (Neighbours(small), index))
        assert np.array_equal(exact.rows, found.rows)
        assert np.array_equal(exact.cosines, found.cosines)


def test_no_queries_find_nothing(small):
    assert FaissIndex.build(small).search(np.zeros((0, 8)), 3).rows.shape == (0, 3)


def test_an_index_of_other_vectors_is_refused(small, tmp_path):
    FaissIndex.build(small).save(tmp_path / "index")
    other = written(tmp_path / "other", np.arange(60) - 9, -np.array(small.values))
    with pytest.raises(InputError, match="index must be an index of .*other, fingerprint"):
        FaissIndex.open(tmp_path / "index", other)


def meta_with(folder, **changes):
    path = folder / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("garble", "complaint"),
    [
        (lambda f: (f / "meta.json").unlink(), "meta.json must be readable"),
        (lambda f: (f / "meta.json").write_text("{"), "meta.json must be JSON"),
        (lambda f: (f / "meta.json").write_text("[1]"), r"format must be 1, got \[1\]"),
        (lambda f: meta_with(f, format=7), "format must be 1, got 7"),
        (lambda f: meta_with(f, lists="x"), "lists must be int, got 'x'"),
        (lambda f: meta_with(f, items=61), "index.faiss must be as meta.json says"),
        (lambda f: (f / "index.faiss").unlink(), "index.faiss must be .* bytes long, got 0"),
        (lambda f: (f / "index.faiss").write_bytes(b"IxFI"), "bytes long, got 4"),
    ],
)
def test_a_garbled_index_is_refused(small, tmp_path, garble, complaint):
    FaissIndex.build(small).save(tmp_path / "index")
    garble(tmp_path / "index")
    with pytest.raises(InputError, match=complaint):
        FaissIndex.open(tmp_path / "index", small)


def test_a_file_that_is_no_index_is_refused(small, tmp_path):
    FaissIndex.build(small).save(tmp_path / "index")
    file = tmp_path / "index" / "index.faiss"
    file.write_bytes(b"?" * file.stat().st_size)
    with pytest.raises(InputError, match="index.faiss must be a faiss index"):
        FaissIndex.open(tmp_path / "index", small)


def test_an_existing_index_is_not_overwritten(small, tmp_path):
    index = FaissIndex.build(small)
    index.save(tmp_path / "index")
    with pytest.raises(InputError, match="index exists already"):
        index.save(tmp_path / "index")


def test_without_faiss_the_package_is_named(small, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match="pip install 'faiss-cpu>=1.9'"):
        FaissIndex.build(small)
