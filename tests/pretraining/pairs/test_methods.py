"""Which pairs each method trains on, of a market of three items and two searches."""

from types import SimpleNamespace

import numpy as np
import pytest

from torchrec_mm.pretraining.pairs.methods import training_pairs, unseen_items

# Item rows 0 to 2, searches in rows 3 and 4; item 1 has no picture.
PACKED = SimpleNamespace(
    num_items=3,
    num_searches=2,
    held_out_items=lambda holdout: np.array([False, holdout == 0.3, False]),
    purchased=np.array([0, 1]),
    hard=np.array([[2, -1], [0, 2]]),
    by_modality={
        "image": SimpleNamespace(
            present=np.array([True, False, True, False, False]),
            content=np.array([0, -1, 2, -1, -1]),
        ),
        "text": SimpleNamespace(
            present=np.ones(5, dtype=bool),
            content=np.arange(5),
            texts=lambda rows: [QUERIES[row] for row in rows],
        ),
    },
)
QUERIES = {3: "Red  shirt", 4: "red shirt "}
NONE = np.zeros(3, dtype=bool)


def pairs(method, modalities=("image", "text"), searches=(0, 1), held_out=NONE):
    made = training_pairs(PACKED, method, modalities, np.array(searches), held_out)
    of_epoch = made.of_epoch(epoch=1, seed=0)
    return list(zip(of_epoch.queries.tolist(), of_epoch.keys.tolist(), strict=True))


@pytest.mark.parametrize(
    ("method", "expected"), [("scl", [(3, 0), (4, 1)]), ("clip-e", [(0, 0), (2, 2)])]
)
def test_each_method_has_its_own_pairs(method, expected):
    assert pairs(method) == expected


def test_co_click_pairs_are_of_items():
    first, second = pairs("co-click")
    assert first == (0, 2) and second in [(1, 0), (1, 2)]


def test_only_the_modalities_of_the_run_and_the_searches_given_count():
    assert pairs("clip-e", ("text",)) == [(0, 0), (1, 1), (2, 2)]
    assert pairs("scl", searches=[1]) == [(4, 1)]
    assert pairs("scl", ("image",)) == []


def test_no_method_learns_of_a_held_out_item():
    held_out = np.array([True, False, False])
    assert pairs("scl", held_out=held_out) == [(4, 1)]
    assert pairs("clip-e", held_out=held_out) == [(2, 2)]
    assert pairs("co-click", held_out=held_out) == [(1, 2)]


def test_training_may_see_every_item_unless_items_are_held_out():
    assert unseen_items(PACKED, 0.3, "time").tolist() == [False, False, False]
    assert unseen_items(PACKED, 0.3, "item").tolist() == [False, True, False]


def test_what_an_equal_query_found_is_relevant_where_searches_are_the_queries():
    made = training_pairs(PACKED, "scl", ("image", "text"), np.array([0, 1]), NONE)
    assert [part.tolist() for part in made.relevant["text"].of(np.array([4]))] == [[0, 0], [0, 1]]
    assert not training_pairs(PACKED, "clip-e", ("image", "text"), np.array([0]), NONE).relevant
