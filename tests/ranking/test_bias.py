"""Smoothed click rates against a count in plain Python."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.data.encode.arrays import InMemory, arrays_of, items_of
from torchrec_mm.data.encoded.encoded import RequestArrays
from torchrec_mm.ranking.bias import BiasModel

PRIOR_IMPRESSIONS = 20  # at the base rate, of every user and item
ITEMS = items_of([-1, 1, 2, 3, 99])
USERS = [5, 5, -6, 7]
CANDIDATES = [[1, 2], [1], [3, 1, 2], [2]]
LABELS = [[1, 0], [1], [0, 0, 1], [0]]


def requests(candidates, labels=None, user_ids=None) -> RequestArrays:
    numbers = [[ITEMS.item_ids.tolist().index(i) for i in ids] for ids in candidates]
    arrays = arrays_of([[] for _ in candidates], numbers, labels)
    return replace(arrays, user_ids=np.array(user_ids or range(len(candidates))))


def train(group_size: int = 3) -> InMemory:
    return InMemory(requests(CANDIDATES, LABELS, USERS), ITEMS, group_size, [])


TEST = requests([[1, 3, 99], [2]], user_ids=[5, 1000])


def log_odds(rate: float) -> float:
    return math.log(rate / (1 - rate))


def oracle(user: int, item: int) -> float:
    seen = [
        (of_user, of_item, label)
        for of_user, items, labels in zip(USERS, CANDIDATES, LABELS, strict=True)
        for of_item, label in zip(items, labels, strict=True)
    ]
    base = sum(label for *_, label in seen) / len(seen)

    def offset(place: int, value: int) -> float:
        clicks = [impression[2] for impression in seen if impression[place] == value]
        rate = (sum(clicks) + PRIOR_IMPRESSIONS * base) / (len(clicks) + PRIOR_IMPRESSIONS)
        return log_odds(rate) - log_odds(base)

    return log_odds(base) + offset(0, user) + offset(1, item)


@pytest.mark.parametrize("group_size", [1, 3, 10])
def test_logits_are_the_base_rate_and_what_user_and_item_add(group_size):
    logits = BiasModel.fit(train(group_size)).logits(TEST, ITEMS)
    expected = [oracle(5, 1), oracle(5, 3), oracle(5, 99), oracle(1000, 2)]
    assert logits.tolist() == pytest.approx(expected, rel=1e-5)
    assert logits.dtype == "float32"


def test_strangers_get_the_base_rate():
    strangers = requests([[99]], user_ids=[1000])
    logits = BiasModel.fit(train()).logits(strangers, ITEMS)
    assert logits.tolist() == pytest.approx([log_odds(3 / 7)])


@pytest.mark.parametrize("label", [0, 1])
def test_labels_all_alike_give_finite_logits(label):
    alike = InMemory(requests([[1, 2]], [[label] * 2]), ITEMS, 3, [])
    (logit, _) = BiasModel.fit(alike).logits(alike.arrays, ITEMS).tolist()
    assert math.isfinite(logit) and (logit > 0) == bool(label)


def test_a_model_comes_back_from_its_tensors():
    model = BiasModel.fit(train())
    again = BiasModel.from_tensors(model.tensors())
    assert again.logits(TEST, ITEMS).tolist() == model.logits(TEST, ITEMS).tolist()
