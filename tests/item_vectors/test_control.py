"""The control's vectors: of the id and the seed, and of nothing else."""

import numpy as np

from torchrec_mm.item_vectors.control import random_origin, random_vectors


def test_a_vector_depends_on_its_id_and_the_seed_alone():
    ids = np.array([5, -7, 2**62, 6])
    vectors = random_vectors(ids, width=16, seed=1)
    np.testing.assert_array_equal(random_vectors(ids[[2, 1]], width=16, seed=1), vectors[[2, 1]])
    both = np.concatenate([vectors, random_vectors(ids, width=16, seed=2)])
    assert len(np.unique(both, axis=0)) == 8
    assert random_origin(width=16, seed=1) != random_origin(width=16, seed=2)


def test_neighbouring_ids_have_unrelated_directions():
    vectors = random_vectors(np.arange(-500, 500), width=64, seed=0).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (vectors @ vectors.T)[np.triu_indices(1000, k=1)]
    assert abs(cosines.mean()) < 2e-3
    assert abs(cosines.std() - 1 / 8) < 2e-3
    assert np.linalg.norm(vectors.mean(axis=0)) < 0.05
