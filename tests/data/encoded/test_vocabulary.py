"""Vocabularies: who has a row of its own, and who shares which."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from torchrec_mm.data.encoded.vocabulary import Vocabularies, Vocabulary, in_order
from torchrec_mm.errors import InputError


def vocabulary(known: list[int], rare: list[int] | None = None) -> Vocabulary:
    return Vocabulary(np.array(known, np.int64), np.array(rare or [], np.int64))


VOCABULARIES = Vocabularies(
    request={"user_id": vocabulary([-8, 7]), "city": vocabulary([70])},
    item={"item_id": vocabulary([1, 2], [3]), "shop": vocabulary([10, 20])},
    behaviour={"action": vocabulary([6]), "stars": vocabulary([4, 5])},
)


def test_unseen_ids_share_row_zero_and_known_ones_have_their_own():
    known = vocabulary([-10, 20, 30])
    assert known.num_rows == 5
    assert known.rows(np.array([[-10, 20], [30, 31]])).tolist() == [[2, 3], [4, 0]]


def test_rare_ids_share_row_one_and_not_that_of_unseen_ids():
    some = vocabulary([2, 3], [1])
    assert some.rows(np.array([1, 2, 3, 4])).tolist() == [1, 2, 3, 0]
    assert some.num_rows == 4


def test_a_vocabulary_may_know_nothing():
    nothing = vocabulary([], [1, 2])
    assert nothing.num_rows == 2
    assert nothing.rows(np.array([1, 2, 3])).tolist() == [1, 1, 0]


def test_features_are_in_name_order_after_the_ids_of_users_and_items():
    assert in_order(["shop", "item_id", "213"]) == ["item_id", "213", "shop"]
    assert in_order({"zone", "user_id", "age"}) == ["user_id", "age", "zone"]


def test_vocabularies_come_back_from_disk_as_they_were_and_in_their_order(tmp_path: Path):
    VOCABULARIES.save(tmp_path / "vocabularies")
    after = Vocabularies.load(tmp_path / "vocabularies")
    for group in ("request", "item", "behaviour"):
        ours, theirs = getattr(VOCABULARIES, group), getattr(after, group)
        assert list(theirs) == in_order(ours)
        for name in ours:
            assert ours[name].known_ids.tolist() == theirs[name].known_ids.tolist()
            assert ours[name].rare_ids.tolist() == theirs[name].rare_ids.tolist()
    assert after.fingerprint == VOCABULARIES.fingerprint


@pytest.mark.parametrize(
    "changed",
    [
        {"request": {"user_id": vocabulary([-8, 7])}},
        {"request": {"user_id": vocabulary([-8, 7]), "town": vocabulary([70])}},
        {"item": {"item_id": vocabulary([1, 2, 3]), "shop": vocabulary([10, 20])}},
        {"item": {"item_id": vocabulary([1, 2], [4]), "shop": vocabulary([10, 20])}},
        {"behaviour": {"action": vocabulary([6, 4]), "stars": vocabulary([5])}},
    ],
)
def test_another_row_or_name_gives_another_fingerprint(changed):
    assert replace(VOCABULARIES, **changed).fingerprint != VOCABULARIES.fingerprint


def test_the_order_of_features_does_not_change_the_fingerprint():
    turned = dict(reversed(VOCABULARIES.request.items()))
    assert replace(VOCABULARIES, request=turned).fingerprint == VOCABULARIES.fingerprint


def test_a_missing_file_of_vocabularies_is_named(tmp_path):
    with pytest.raises(InputError, match="absent must be the vocabularies of a ranker run"):
        Vocabularies.load(tmp_path / "absent")
