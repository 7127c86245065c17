"""Exact search against a plain oracle, on vectors small enough to check by hand."""

import numpy as np
import pytest

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors import neighbours as module
from torchrec_mm.item_vectors.neighbours import Neighbours, neighbours_of, rank, whole_steps
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)


def written(folder, item_ids, vectors, dtype="float32", **given) -> ItemVectors:
    meta = {"dtype": dtype, "encoder": "scl", "modality": "image"} | given
    write_item_vectors(folder, np.array(item_ids, dtype=np.int64), np.array(vectors), **meta)
    return ItemVectors.open(folder)


def oracle(vectors: ItemVectors, query, k: int, excluded=None) -> list[tuple[int, float]]:
    """One item at a time, sorted by (-cosine, item_id)."""
    scored = []
    for item_id, value in zip(vectors.item_ids.tolist(), vectors.values, strict=True):
        value, query = value.astype(float), np.asarray(query, dtype=float)
        length = np.sqrt((value**2).sum()) * np.sqrt((query**2).sum())
        if item_id != excluded:
            scored.append((item_id, float((value * query).sum() / length)))
    return sorted(scored, key=lambda pair: (-round(pair[1], 9), pair[0]))[:k]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_neighbours_are_those_of_a_plain_loop_over_blocks_of_any_size(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(module, "BLOCK_ITEMS", 7)
    monkeypatch.setattr(module, "BLOCK_QUERIES", 3)
    generator = np.random.default_rng(0)
    item_ids = generator.integers(-(2**62), 2**62, 50)
    vectors = written(tmp_path / "v", item_ids, generator.normal(size=(50, 6)), dtype)
    queries = generator.normal(size=(8, 6)).astype(np.float32) * 9
    found = Neighbours(vectors).search(queries, 40, excluded=item_ids[:8])
    for query, own, got in zip(queries, item_ids, found.named(vectors.item_ids), strict=False):
        expected = oracle(vectors, query, 40, excluded=own)
        assert [item_id for item_id, _ in got] == [item_id for item_id, _ in expected]
        assert [c for _, c in got] == pytest.approx([c for _, c in expected], abs=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("blocks", [3, 64])
def test_equal_vectors_come_in_the_order_of_their_ids(tmp_path, monkeypatch, dtype, blocks):
    monkeypatch.setattr(module, "BLOCK_ITEMS", blocks)
    generator = np.random.default_rng(1)
    some = generator.normal(size=(4, 100))
    vectors = written(tmp_path / "v", np.arange(400) - 200, some[np.arange(400) % 4], dtype)
    found = Neighbours(vectors).search(some + generator.normal(size=(4, 100)) / 9, 60)
    for place, row in enumerate(found.rows):
        assert row.tolist() == list(range(place, 240, 4))


def test_products_add_up_to_the_same_bits_in_any_order():
    generator = np.random.default_rng(3)
    queries, items = generator.normal(size=(50, 256)), generator.normal(size=(90, 256))
    dot = whole_steps(queries) @ whole_steps(items).T
    for order in (generator.permutation(256) for _ in range(3)):
        again = whole_steps(queries)[:, order] @ whole_steps(items)[:, order].T
        assert np.array_equal(again, dot)


def test_no_cosine_is_beyond_one_although_values_are_rounded_to_steps(tmp_path):
    for width in (24, 36, 42, 49):  # each value of 1 / sqrt(width) is rounded up
        vectors = written(tmp_path / str(width), [1, 2], [np.ones(width), -np.ones(width)])
        found = Neighbours(vectors).search(np.ones((1, width)), 2)
        assert found.cosines.tolist() == [[1.0, -1.0]]


def test_slots_beyond_the_last_item_are_empty(tmp_path):
    vectors = written(tmp_path / "v", [5, 6, 7], [EAST, NORTH, WEST])
    found = Neighbours(vectors).search(np.array([EAST, EAST]), 5, excluded=np.array([6, 99]))
    assert found.rows.tolist() == [[0, 2, -1], [0, 1, 2]]
    assert found.mask.tolist() == [[True, True, False], [True, True, True]]
    assert np.isneginf(found.cosines[~found.mask]).all()


def test_a_single_item_has_no_neighbour_but_is_found_by_a_query(tmp_path):
    vectors = written(tmp_path / "v", [5], [NORTH])
    assert neighbours_of(Neighbours(vectors), np.array([5]), 3).rows.tolist() == [[-1]]
    assert Neighbours(vectors).search(np.array([NORTH]), 1).named(np.array([5])) == [[(5, 1.0)]]


def test_an_item_is_no_neighbour_of_itself_and_its_copy_is(tmp_path):
    vectors = written(tmp_path / "v", [5, 9, 7], [(3.0, 4.0), (3.0, 4.0), WEST], "int8")
    found = neighbours_of(Neighbours(vectors), np.array([9, 5]), 1)
    assert found.named(vectors.item_ids) == [[(5, 1.0)], [(9, 1.0)]]


def test_no_queries_find_nothing(tmp_path):
    vectors = written(tmp_path / "v", [5], [NORTH])
    found = Neighbours(vectors).search(np.zeros((0, 2)), 3)
    assert found.rows.shape == found.cosines.shape == (0, 1)


def test_candidates_are_ranked_as_the_whole_search_ranks_them(tmp_path):
    generator = np.random.default_rng(2)
    vectors = written(tmp_path / "v", np.arange(30), generator.normal(size=(30, 4)), "int8")
    queries = generator.normal(size=(3, 4))
    whole = Neighbours(vectors).search(queries, 9)
    shuffled = np.concatenate([whole.rows[:, ::-1], np.full((3, 2), -1)], axis=1)
    ranked = rank(queries, vectors, shuffled, 12)
    assert np.array_equal(ranked.rows[:, :9], whole.rows)
    assert np.array_equal(ranked.cosines[:, :9], whole.cosines)
    assert (ranked.rows[:, 9:] == -1).all() and ranked.rows.shape == (3, 11)


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        (np.ones((2, 3)), r"queries must be \(Q, 2\) as the item vectors, got \(2, 3\)"),
        (np.array([EAST, (0, 0)]), "queries must be finite and not zero"),
        (np.array([EAST, (np.nan, 1)]), "queries must be finite and not zero"),
    ],
)
def test_queries_that_have_no_cosine_are_refused(tmp_path, query, complaint):
    vectors = written(tmp_path / "v", [5], [NORTH])
    with pytest.raises(InputError, match=complaint):
        Neighbours(vectors).search(query, 1)


def test_an_item_without_a_vector_is_named(tmp_path):
    vectors = written(tmp_path / "v", [5], [NORTH])
    with pytest.raises(InputError, match=r"items must have a vector in .*v, got 8"):
        neighbours_of(Neighbours(vectors), np.array([5, 8]), 1)
