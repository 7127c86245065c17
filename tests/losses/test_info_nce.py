"""InfoNCE against a sum written out by hand, values and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from torchrec_mm.losses.info_nce import info_nce

TEMPERATURE = torch.tensor(0.2, dtype=torch.float64)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def by_hand(query, positive, negatives, is_negative, temperature) -> list[float]:
    losses = []
    for i in range(len(query)):

        def weight(key, i=i):
            return math.exp(sum(a * b for a, b in zip(query[i], key, strict=True)) / temperature)

        wrong = sum(weight(negatives[j]) for j in range(len(negatives)) if is_negative[i][j])
        losses.append(-math.log(weight(positive[i]) / (weight(positive[i]) + wrong)))
    return losses


def example():
    is_negative = torch.rand(5, 9, generator=torch.Generator().manual_seed(3)) < 0.7
    return unit(5, 6), unit(5, 6, seed=1), unit(9, 6, seed=2), is_negative


def test_each_query_is_scored_as_the_formula_says():
    query, positive, negatives, is_negative = example()
    got = info_nce(query, positive, negatives, is_negative, TEMPERATURE)
    expected = by_hand(*(x.tolist() for x in (query, positive, negatives, is_negative)), 0.2)
    assert got.tolist() == pytest.approx(expected, rel=1e-12)


def test_gradients_of_query_and_temperature_are_those_of_finite_differences():
    query, positive, negatives, is_negative = example()
    temperature = TEMPERATURE.clone().requires_grad_()
    query = query.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda q, t: info_nce(q, positive, negatives, is_negative, t), (query, temperature)
    )


def test_a_masked_candidate_is_invisible_however_close_it_is():
    query, positive, negatives, is_negative = example()
    is_negative[:, 4] = False
    before = info_nce(query, positive, negatives, is_negative, TEMPERATURE)
    negatives[4] = query[0]
    after = info_nce(query, positive, negatives, is_negative, TEMPERATURE)
    assert before.tolist() == after.tolist()


def test_without_negatives_there_is_nothing_to_lose():
    query, positive, _, _ = example()
    none = torch.zeros(5, 0, dtype=torch.bool)
    assert info_nce(query, positive, query[:0], none, TEMPERATURE).tolist() == [0] * 5


def test_a_query_whose_candidates_are_all_masked_learns_nothing():
    query, positive, negatives, is_negative = example()
    is_negative[2] = False
    query.requires_grad_()
    loss = info_nce(query, positive, negatives, is_negative, TEMPERATURE)
    loss.sum().backward()
    assert loss[2] == 0 and (query.grad[2] == 0).all()
    assert query.grad.isfinite().all() and (query.grad[1] != 0).any()


def test_extreme_temperatures_stay_finite():
    query, positive, negatives, is_negative = example()
    cold = info_nce(
        query.float(), positive.float(), negatives.float(), is_negative, TEMPERATURE / 1e3
    )
    assert cold.isfinite().all()


def test_a_mask_of_the_wrong_shape_is_refused_by_name():
    query, positive, negatives, is_negative = example()
    with pytest.raises(ValueError, match=r"bool \(B, M\) = \(5, 9\)"):
        info_nce(query, positive, negatives, is_negative[:, :-1], TEMPERATURE)
