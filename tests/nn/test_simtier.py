"""SimTier, stated as facts a reader can check by hand."""

import math

import pytest
import torch

from torchrec_mm.nn.simtier import SimTier, cosine_similarity

EAST = [1.0, 0.0]


def tiers(cosines: list[float], mask: list[bool] | None = None, num_tiers: int = 4) -> list[float]:
    """Histogram of one candidate of one request."""
    cosine = torch.tensor([[cosines]])
    real = [True] * len(cosines) if mask is None else mask
    pair_mask = torch.tensor([[real]], dtype=torch.bool)
    return SimTier(num_tiers)(cosine, pair_mask)[0, 0].tolist()


# Four tiers: [-1, -.5)  [-.5, 0)  [0, .5)  [.5, 1]
@pytest.mark.parametrize(
    ("cosine", "tier"),
    [
        (-1.0, 0),
        (-0.6, 0),
        (-0.5, 1),
        (-0.4, 1),
        (0.0, 2),
        (0.4, 2),
        (0.5, 3),
        (0.6, 3),
        (1.0, 3),
    ],
)
def test_a_behaviour_is_counted_in_the_tier_that_holds_its_cosine(cosine, tier):
    expected = [0.0] * 4
    expected[tier] = 1.0
    assert tiers([cosine]) == expected


def test_the_papers_twenty_tiers_are_a_tenth_wide():
    middles = [-0.95 + 0.1 * tier for tier in range(20)]
    assert tiers(middles, num_tiers=20) == [1] * 20


def test_cosines_beyond_one_by_rounding_join_the_outer_tiers():
    assert tiers([1.0000002, -1.0000002]) == [1, 0, 0, 1]


def test_every_real_pair_is_counted_exactly_once():
    assert tiers([-0.9, 0.9, 0.9, 0.1]) == [1, 0, 1, 2]
    generator = torch.Generator().manual_seed(0)
    cosine = torch.rand(3, 4, 50, generator=generator) * 2 - 1
    mask = torch.rand(3, 4, 50, generator=generator) < 0.6
    counts = SimTier(7)(cosine, mask)
    assert counts.shape == (3, 4, 7)
    assert counts.sum(-1).tolist() == mask.sum(-1).tolist()


@pytest.mark.parametrize("junk", [0.0, 1e9, -1e9, math.nan, math.inf])
def test_a_masked_pair_is_invisible_whatever_it_holds(junk):
    assert tiers([0.9, junk, junk], [True, False, False]) == [0, 0, 0, 1]


def test_a_new_user_gets_a_row_of_zeros():
    assert tiers([0.9], [False]) == [0, 0, 0, 0]
    assert tiers([]) == [0, 0, 0, 0]


def test_each_candidate_of_each_request_has_a_histogram_of_its_own():
    generator = torch.Generator().manual_seed(1)
    cosine = torch.rand(3, 2, 9, generator=generator) * 2 - 1
    mask = torch.rand(3, 2, 9, generator=generator) < 0.5
    together = SimTier(5)(cosine, mask)
    for request in range(3):
        for candidate in range(2):
            alone = tiers(cosine[request, candidate].tolist(), mask[request, candidate].tolist(), 5)
            assert together[request, candidate].tolist() == alone


def test_no_gradient_leaves_a_histogram():
    cosine = torch.full((1, 1, 1), 0.9, requires_grad=True)
    assert not SimTier(4)(cosine, torch.ones(1, 1, 1, dtype=torch.bool)).requires_grad


def test_half_precision_cosines_are_counted_in_float32():
    cosine = torch.tensor([[[-0.9, -0.4, 0.4, 0.9]]], dtype=torch.bfloat16)
    counts = SimTier(4)(cosine, torch.ones(1, 1, 4, dtype=torch.bool))
    assert counts.dtype == torch.float32
    assert counts.tolist() == [[[1, 1, 1, 1]]]


def test_fewer_than_two_tiers_are_refused():
    with pytest.raises(ValueError, match="num_tiers must be at least 2, got 1"):
        SimTier(1)


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        (torch.ones(1, 1, 2, dtype=torch.bool), r"pair_mask must be bool \(1, 1, 1\), got"),
        (torch.ones(1, 1, 1), "got torch.float32"),
    ],
)
def test_a_wrong_mask_is_refused_by_name(mask, complaint):
    with pytest.raises(ValueError, match=complaint):
        SimTier(4)(torch.zeros(1, 1, 1), mask)


def test_every_candidate_meets_every_behaviour_of_its_own_request():
    targets = torch.tensor([[EAST, [0.0, 1.0]], [EAST, EAST]])
    behaviours = torch.tensor([[EAST, [-1.0, 0.0], [0.6, 0.8]], [[0.0, 1.0], EAST, EAST]])
    cosine = cosine_similarity(targets, behaviours)
    expected = [[[1, -1, 0.6], [0, 0, 0.8]], [[0, 1, 1], [0, 1, 1]]]
    torch.testing.assert_close(cosine, torch.tensor(expected, dtype=torch.float32))


def test_only_direction_matters_not_vector_length():
    generator = torch.Generator().manual_seed(2)
    targets = torch.randn(2, 3, 5, generator=generator)
    behaviours = torch.randn(2, 4, 5, generator=generator)
    torch.testing.assert_close(
        cosine_similarity(targets * 1000, behaviours * 0.001),
        cosine_similarity(targets, behaviours),
    )


def test_a_zero_vector_has_cosine_zero_with_everything():
    assert cosine_similarity(torch.zeros(1, 1, 2), torch.tensor([[EAST]])).item() == 0


@pytest.mark.parametrize(
    ("targets", "behaviours"),
    [((2, 5), (2, 4, 5)), ((2, 1, 5), (3, 4, 5)), ((2, 1, 5), (2, 4, 6))],
)
def test_targets_and_behaviours_of_other_requests_or_widths_are_refused(targets, behaviours):
    with pytest.raises(ValueError, match=r"must be \(R, C, D\) and \(R, L, D\), got \(2, "):
        cosine_similarity(torch.zeros(targets), torch.zeros(behaviours))
