"""Vectors of a study: made from a set, and nothing but what is said changes."""

import numpy as np
import pytest

from tests.item_vectors.test_neighbours import written
from torchrec_mm.item_vectors.neighbours import unit
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.study.recipe import VectorsOf
from torchrec_mm.study.vectors import coarsened, derive, name_of, narrowed

ITEMS, WIDTH = 400, 12


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    values = np.random.default_rng(0).normal(size=(ITEMS, WIDTH))
    folder = tmp_path_factory.mktemp("given") / "text"
    return written(folder, np.arange(ITEMS) * 7, values, "float32")


@pytest.fixture
def derived(given, tmp_path):
    def make(**how) -> ItemVectors:
        folder = tmp_path / name_of(VectorsOf(**how))
        derive(given.folder, VectorsOf(**how), folder)
        return ItemVectors.open(folder)

    return make


def cosines(vectors: np.ndarray) -> np.ndarray:
    directions = unit(vectors)
    return directions @ directions.T


def test_a_larger_share_holds_the_items_of_a_smaller_one(given, derived):
    half, most = derived(of="own", share=0.5), derived(of="own", share=0.9)
    assert set(half.item_ids) < set(most.item_ids) < set(given.item_ids)
    assert len(half) == pytest.approx(0.5 * ITEMS, abs=40)


def test_the_control_knows_the_same_items_and_nothing_of_them(given, derived):
    random = derived(of="random")
    assert (random.item_ids == given.item_ids).all() and random.encoder == "random"
    assert abs(np.corrcoef(cosines(random.values)[0, 1:], cosines(given.values)[0, 1:])[0, 1]) < 0.2


def test_constant_vectors_are_all_alike(derived):
    assert cosines(derived(of="constant", bits=32).values) == pytest.approx(1)


def test_narrowed_vectors_keep_the_cosines_as_well_as_any_of_their_width(given):
    assert cosines(narrowed(given.values, WIDTH)) == pytest.approx(cosines(given.values), abs=1e-5)
    products = narrowed(given.values, 6) @ narrowed(given.values, 6).T
    cut = unit(given.values)[:, :6]
    exact = cosines(given.values)
    assert ((products - exact) ** 2).sum() < ((cut @ cut.T - exact) ** 2).sum()


def test_four_bits_are_fifteen_steps(given):
    steps = coarsened(given.values)
    assert set(np.unique(steps)) <= set(range(-7, 8))
    assert (np.abs(steps).max(axis=1) == 7).all()
    assert cosines(steps) == pytest.approx(cosines(given.values), abs=0.15)


def test_vectors_that_differ_have_different_names_and_origins(derived):
    ways = [{"of": "own"}, {"of": "own", "width": 4}, {"of": "own", "bits": 4}, {"of": "random"}]
    made = [derived(**way) for way in ways]
    assert len({each.origin for each in made}) == len({each.folder for each in made}) == 4
