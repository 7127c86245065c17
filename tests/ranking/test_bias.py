"""Smoothed click rates against a count in plain Python."""

import math

import pytest

from tests.data.encoded import requests_of
from torchrec_mm.ranking.bias import PRIOR_IMPRESSIONS, BiasModel

TRAIN = requests_of(
    behaviours=[[], [], [], []],
    candidates=[[1, 2], [1], [3, 1, 2], [2]],
    labels=[1, 0, 1, 0, 0, 1, 0],
    user_ids=[5, 5, -6, 7],
)
TEST = requests_of([[], []], [[1, 3, 99], [2]], user_ids=[5, 1000])


def log_odds(rate: float) -> float:
    return math.log(rate / (1 - rate))


def oracle(user: int, item: int) -> float:
    seen = []
    labels = iter(TRAIN.labels.tolist())
    for row, of_user in enumerate(TRAIN.user_ids.tolist()):
        start, stop = TRAIN.candidates.offsets[row : row + 2]
        for of_item in TRAIN.candidates.values[start:stop].tolist():
            seen.append((of_user, of_item, next(labels)))
    base = sum(label for *_, label in seen) / len(seen)

    def offset(place: int, value: int) -> float:
        clicks = [impression[2] for impression in seen if impression[place] == value]
        rate = (sum(clicks) + PRIOR_IMPRESSIONS * base) / (len(clicks) + PRIOR_IMPRESSIONS)
        return log_odds(rate) - log_odds(base)

    return log_odds(base) + offset(0, user) + offset(1, item)


def test_logits_are_the_base_rate_and_what_user_and_item_add():
    logits = BiasModel.fit(TRAIN).logits(TEST)
    expected = [oracle(5, 1), oracle(5, 3), oracle(5, 99), oracle(1000, 2)]
    assert logits.tolist() == pytest.approx(expected, rel=1e-5)
    assert logits.dtype == "float32"


def test_strangers_get_the_base_rate():
    strangers = requests_of([[]], [[99]], user_ids=[1000])
    assert BiasModel.fit(TRAIN).logits(strangers).tolist() == pytest.approx([log_odds(3 / 7)])


@pytest.mark.parametrize("label", [0, 1])
def test_labels_all_alike_give_finite_logits(label):
    train = requests_of([[]], [[1, 2]], labels=[label] * 2)
    (logit, _) = BiasModel.fit(train).logits(train).tolist()
    assert math.isfinite(logit) and (logit > 0) == bool(label)


def test_a_model_comes_back_from_its_tensors():
    model = BiasModel.fit(TRAIN)
    again = BiasModel.from_tensors(model.tensors())
    assert again.logits(TEST).tolist() == model.logits(TEST).tolist()
