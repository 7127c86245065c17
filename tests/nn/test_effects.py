"""Ridge effects, against plain NumPy, and what shrinks them."""

import numpy as np
import pytest
import torch

from torchrec_mm.nn.effects import (
    PRECISIONS,
    likely_precision,
    principal_directions,
    solve,
    sums_of,
)

WIDTH = 3
PRECISION = torch.tensor([2.0, 0.5, 0.5])


def clicks(num_users: int, spread: float, each: int = 60) -> torch.Tensor:
    """(U, W + W * W) sums of drawn clicks, of users whose tastes differ by ``spread``."""
    draw = torch.Generator().manual_seed(3)
    columns = torch.randn(num_users, each, WIDTH, generator=draw)
    columns[:, :, 0] = 1
    tastes = torch.randn(num_users, 1, WIDTH, generator=draw) * spread
    tastes[:, :, 0] = 0
    rate = torch.sigmoid((columns * tastes).sum(2))
    labels = (torch.rand(num_users, each, generator=draw) < rate).float()
    logits = torch.zeros(each)
    ones = torch.ones(each)
    users = zip(columns, labels, strict=True)
    whole = torch.tensor([0, each])
    return torch.cat([sums_of(x, logits, y, ones, whole) for x, y in users])


def test_effects_are_a_newton_step_of_ridge_regression_from_the_networks_logits():
    random = np.random.default_rng(0)
    columns, logits = random.normal(size=(7, WIDTH)), random.normal(size=7)
    labels, weights = random.integers(0, 2, 7), random.uniform(0.5, 2, 7)
    numbers = (torch.tensor(x).float() for x in (columns, logits, labels, weights))
    sums = sums_of(*numbers, torch.tensor([0, 2, 2, 6, 7]))  # requests of one user, one empty
    assert not sums[1].any()
    effects, _ = solve(sums.sum(0, keepdim=True), PRECISION)
    rate = 1 / (1 + np.exp(-logits))
    curvature = sum(
        w * p * (1 - p) * np.outer(x, x) for w, p, x in zip(weights, rate, columns, strict=True)
    )
    gradient = columns.T @ (weights * (labels - rate))
    expected = np.linalg.solve(curvature + np.diag(PRECISION.numpy()), gradient)
    np.testing.assert_allclose(effects[0].numpy(), expected, rtol=1e-4)


def test_evidence_is_the_log_ratio_of_two_integrals_over_effects():
    gradient, curvature, precision = 1.3, 0.7, 2.0
    sums = torch.tensor([[gradient, curvature]])
    _, evidence = solve(sums, torch.tensor([precision]))
    effect = np.linspace(-12, 12, 100_001)
    prior = np.exp(-precision * effect**2 / 2) * np.sqrt(precision / (2 * np.pi))
    likelihood = np.exp(gradient * effect - curvature * effect**2 / 2)
    expected = np.log((prior * likelihood).sum() * (effect[1] - effect[0]))
    assert float(evidence) == pytest.approx(expected, abs=1e-4)


def test_a_user_never_seen_has_no_effects_and_one_seen_often_is_shrunk_less():
    sums = clicks(1, 1.0)
    never, once, often = (solve(sums * times, PRECISION)[0] for times in (0, 0.1, 10))
    assert not never.any()
    assert once.norm() < often.norm()


def test_where_users_differ_the_likely_precision_is_that_of_their_tastes():
    precision = likely_precision(clicks(400, spread=0.5), WIDTH)
    assert precision[1] == precision[2] and 2 <= precision[1] <= 8  # 1 / 0.5 ** 2 = 4
    assert precision[0] >= 64  # all click alike often


def test_where_users_do_not_differ_all_is_shrunk_to_nearly_nothing():
    precision = likely_precision(clicks(400, spread=0.0), WIDTH)
    assert (precision >= 64).all()


def test_without_users_precisions_are_the_largest():
    assert likely_precision(torch.zeros(0, 12), WIDTH).tolist() == [PRECISIONS[-1]] * 3


def test_directions_are_principal_and_make_a_mean_square_of_one():
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(200, 4, generator=draw) * torch.tensor([1.0, 3.0, 0.1, 2.0]) + 5
    mean, directions = principal_directions(vectors, 2)
    projected = (vectors - mean) @ directions
    assert projected.mean(0).abs().max() < 1e-5
    assert float(projected.square().sum(1).mean()) == pytest.approx(1, abs=1e-4)
    assert directions.abs().argmax(0).tolist() == [1, 3]


def test_directions_that_there_are_not_are_zeros():
    _, directions = principal_directions(torch.eye(2), 4)
    assert directions.shape == (2, 4) and not directions[:, 2:].any()
    for vectors in (torch.ones(3, 2), torch.zeros(0, 2)):
        assert not principal_directions(vectors, 4)[1].any()
