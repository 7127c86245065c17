"""Semantic codes: alike vectors share them, and they are those that faiss itself finds."""

import faiss
import numpy as np
import pytest

from tests.item_vectors.test_neighbours import written
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors import codes
from torchrec_mm.item_vectors.codes import Codebooks, code_tables
from torchrec_mm.item_vectors.neighbours import unit

CLUSTERS = 8


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """Items of eight clusters, one after another."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(CLUSTERS, 16))
    near = centres[np.arange(512) % CLUSTERS] + 0.05 * generator.normal(size=(512, 16))
    return unit(near)


@pytest.fixture(scope="module")
def vectors(values, tmp_path_factory):
    return written(tmp_path_factory.mktemp("vectors") / "v", np.arange(512) * 3, values, "float32")


@pytest.fixture(scope="module")
def codebooks(vectors) -> Codebooks:
    return Codebooks.learn(vectors)


def test_each_level_has_a_table_of_its_centres_and_two_rows_of_no_single_code(vectors, codebooks):
    assert codebooks.centres.shape == (3, 16, 16)
    assert code_tables(vectors) == codebooks.tables
    assert codebooks.tables == {"vector_code_1": 18, "vector_code_2": 18, "vector_code_3": 18}


@pytest.mark.parametrize(("items", "bits"), [(2, 1), (64, 1), (127, 1), (128, 2), (10**8, 8)])
def test_a_small_catalogue_has_fewer_centres_and_a_large_one_256(items, bits):
    assert codes.bits_of(items) == bits


def test_items_of_different_clusters_have_different_first_codes(values, codebooks):
    first = codebooks.codes(values)[:, 0]
    shared = {(code, item % CLUSTERS) for item, code in enumerate(first.tolist())}
    assert len({code for code, _ in shared}) == len(shared)


def test_codes_are_those_that_faiss_finds(values, codebooks):
    quantizer = faiss.ResidualQuantizer(16, 3, 4)
    quantizer.max_beam_size = 1
    faiss.copy_array_to_vector(codebooks.centres.ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    packed = quantizer.compute_codes(values.astype(np.float32))
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, :12].reshape(-1, 3, 4)
    assert (codebooks.codes(values) == bits @ (1 << np.arange(4))).all()


def test_the_length_of_a_vector_does_not_matter(values, codebooks):
    assert (codebooks.codes(values * 7) == codebooks.codes(values)).all()


def test_an_item_without_a_vector_has_row_0_and_a_new_one_that_of_its_look(
    values, vectors, codebooks, tmp_path
):
    ids = np.array([*vectors.item_ids, 9999])
    more = written(tmp_path / "more", ids, np.vstack([values, values[5]]), "float32")
    rows = codebooks.rows(more, np.array([0, 1, 15, 9999]))
    assert (rows[:, 1] == 0).all()
    assert (rows[:, [0, 2, 3]] >= 2).all()
    assert (rows[:, 3] == rows[:, 2]).all()  # item 15 is that of number 5


def test_what_is_learned_is_always_alike_and_read_back_as_it_was(vectors, codebooks, tmp_path):
    codebooks.save(tmp_path / "codebooks")
    assert (Codebooks.load(tmp_path / "codebooks").centres == codebooks.centres).all()
    assert (Codebooks.learn(vectors).centres == codebooks.centres).all()


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "codebooks").write_bytes(b"no")
    for name in ("codebooks", "missing"):
        with pytest.raises(InputError, match=f"{name} must hold the codebooks of a run"):
            Codebooks.load(tmp_path / name)


def test_one_vector_has_no_codes(tmp_path):
    one = written(tmp_path / "one", np.arange(1), np.ones((1, 4)), "float32")
    with pytest.raises(InputError, match="vectors must be at least 2 to have codes, got 1"):
        code_tables(one)
