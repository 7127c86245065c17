"""Vocabularies: who has a row of its own, and who shares which."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.encoded import catalogue_of, requests_of
from torchrec_mm.data.vocabulary import Vocabularies, Vocabulary, build_vocabularies
from torchrec_mm.errors import InputError

ITEMS = catalogue_of([1, 2, 3, 4], shop=[10, 20, 20, 40])
TRAIN = requests_of(
    behaviours=[[1, 99], [1]],
    candidates=[[1, 2], [3]],
    user_ids=[7, -8],
    features={"city": [70, 70]},
    behaviour_attributes={"stars": [5, 4, 5]},
)


def test_unseen_ids_share_row_zero_and_known_ones_have_their_own():
    vocabulary = Vocabulary.of(np.array([30, -10, 30, 20]))
    assert vocabulary.num_rows == 5
    assert vocabulary.rows(np.array([[-10, 20], [30, 31]])).tolist() == [[2, 3], [4, 0]]


def test_rare_ids_share_row_one_and_not_that_of_unseen_ids():
    vocabulary = Vocabulary.of(np.array([1, 2, 2, 3, 3, 3]), min_count=2)
    assert vocabulary.rows(np.array([1, 2, 3, 4])).tolist() == [1, 2, 3, 0]
    assert vocabulary.num_rows == 4


def test_a_vocabulary_may_know_nothing():
    vocabulary = Vocabulary.of(np.array([1, 2]), min_count=2)
    assert vocabulary.num_rows == 2
    assert vocabulary.rows(np.array([1, 2, 3])).tolist() == [1, 1, 0]


def test_every_feature_has_the_values_that_training_shows():
    vocabularies = build_vocabularies(TRAIN, ITEMS, min_count=1)
    known = {
        name: vocabulary.known_ids.tolist()
        for group in (vocabularies.request, vocabularies.item, vocabularies.behaviour)
        for name, vocabulary in group.items()
    }
    assert known == {
        "user_id": [-8, 7],
        "city": [70],
        "item_id": [1, 2, 3, 99],
        "shop": [10, 20],  # item 4 is not in training
        "stars": [4, 5],
    }


def test_an_item_is_counted_as_candidate_and_as_behaviour():
    vocabularies = build_vocabularies(TRAIN, ITEMS, min_count=2)
    assert vocabularies.item["item_id"].known_ids.tolist() == [1]
    three_times = build_vocabularies(TRAIN, ITEMS, min_count=3)
    assert three_times.item["item_id"].known_ids.tolist() == [1]
    assert build_vocabularies(TRAIN, ITEMS, 4).item["item_id"].num_rows == 2


@pytest.mark.parametrize("name", ["shop", "item_id"])
def test_a_behaviour_attribute_may_not_be_called_like_a_table_of_items(name):
    train = requests_of([[1]], [[1]], behaviour_attributes={name: [5]})
    with pytest.raises(InputError, match=f"behaviour attribute {name} must not share its name"):
        build_vocabularies(train, ITEMS, min_count=1)


def test_vocabularies_come_back_from_disk_as_they_were_and_in_their_order(tmp_path: Path):
    train = requests_of([[1]], [[1]], behaviour_attributes={"stars": [5], "action": [6]})
    before = build_vocabularies(train, ITEMS, min_count=2)
    before.save(tmp_path / "vocabularies")
    after = Vocabularies.load(tmp_path / "vocabularies")
    for group in ("request", "item", "behaviour"):
        ours, theirs = getattr(before, group), getattr(after, group)
        assert sorted(ours) == sorted(theirs)
        for name in ours:
            assert ours[name].known_ids.tolist() == theirs[name].known_ids.tolist()
            assert ours[name].rare_ids.tolist() == theirs[name].rare_ids.tolist()
    assert list(before.behaviour) == list(after.behaviour)


def test_a_missing_file_of_vocabularies_is_named(tmp_path):
    with pytest.raises(InputError, match="absent must be the vocabularies of a ranker run"):
        Vocabularies.load(tmp_path / "absent")
