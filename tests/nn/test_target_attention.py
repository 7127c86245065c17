"""Target attention against a slow oracle that forms [h, t, h - t, h * t] pair by pair."""

import math

import pytest
import torch
from torch import Tensor

from torchrec_mm.nn.target_attention import TargetAttention, masked_softmax

R, C, L, E = 3, 2, 5, 4


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, behaviours and a mask; the last request has no behaviour."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(R, L, generator=generator) < 0.7
    mask[0, 0] = True
    mask[-1] = False
    targets = torch.randn(R, C, E, generator=generator)
    return targets, torch.randn(R, L, E, generator=generator), mask


def known_cosines(mask: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    side = torch.rand(R, C, L, generator=generator) * 2 - 1
    side_mask = (torch.rand(R, C, L, generator=generator) < 0.6) & mask[:, None]
    return side, side_mask


def attention(side_information: bool = False) -> TargetAttention:
    torch.manual_seed(5)
    module = TargetAttention(E, hidden=6, side_information=side_information)
    with torch.no_grad():  # every part of the unit must take part
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def relu(x: float) -> float:
    return max(x, 0.0)


def weight_of_the_difference(module: TargetAttention) -> list[list[float]]:
    """One (H, 4E) first layer on [h, t, h - t, h * t] that equals the module's three parts.

    The part on h - t is free: whatever it adds is taken from the parts on h and on t.
    """
    difference = torch.randn(6, E, generator=torch.Generator().manual_seed(3))
    return torch.cat(
        [
            module.behaviour.weight - difference,
            module.target.weight + difference,
            difference,
            module.product,
        ],
        dim=1,
    ).tolist()


def oracle(module, target, behaviours, mask, side=None, side_mask=None) -> list[float]:
    """One candidate, plain Python: (E,) or, with side information, (E + 1,)."""
    first = weight_of_the_difference(module)
    bias = module.behaviour.bias.tolist()
    side_weight = module.side.tolist() if side else [0.0] * len(bias)
    (last,) = module.score.weight.tolist()
    real = [i for i, is_real in enumerate(mask) if is_real]
    known = [s if side and side_mask[i] else 0.0 for i, s in enumerate(side or mask)]
    scores = []
    for i in real:
        h = behaviours[i]
        pair = [
            *h,
            *target,
            *(x - y for x, y in zip(h, target, strict=True)),
            *(x * y for x, y in zip(h, target, strict=True)),
        ]
        hidden = [
            relu(dot(row, pair) + b + s * known[i])
            for row, b, s in zip(first, bias, side_weight, strict=True)
        ]
        scores.append(dot(last, hidden))
    weights = [math.exp(score - max(scores)) for score in scores]
    weights = [weight / sum(weights) for weight in weights]
    pooled = [
        sum(w * behaviours[i][e] for w, i in zip(weights, real, strict=True)) for e in range(E)
    ]
    if side is None:
        return pooled
    return [*pooled, sum(w * known[i] for w, i in zip(weights, real, strict=True))]


def test_each_candidate_pools_the_behaviours_as_the_activation_unit_weighs_them():
    module, (targets, behaviours, mask) = attention(), inputs()
    pooled = module(targets, behaviours, mask)
    expected = [
        [oracle(module, t, behaviours[r].tolist(), mask[r].tolist()) for t in targets[r].tolist()]
        for r in range(R)
    ]
    torch.testing.assert_close(pooled, torch.tensor(expected), atol=1e-5, rtol=1e-4)


def test_a_known_cosine_moves_the_weights_and_is_pooled_beside_the_behaviours():
    module, (targets, behaviours, mask) = attention(side_information=True), inputs()
    side, side_mask = known_cosines(mask)
    pooled = module(targets, behaviours, mask, side, side_mask)
    expected = [
        [
            oracle(
                module,
                targets[r, c].tolist(),
                behaviours[r].tolist(),
                mask[r].tolist(),
                side[r, c].tolist(),
                side_mask[r, c].tolist(),
            )
            for c in range(C)
        ]
        for r in range(R)
    ]
    torch.testing.assert_close(pooled, torch.tensor(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("junk", [0.0, 1e9, math.nan, math.inf])
def test_padding_is_invisible_whatever_it_holds(junk):
    module, (targets, behaviours, mask) = attention(), inputs()
    before = module(targets, behaviours, mask)
    after = module(targets, behaviours.masked_fill(~mask[..., None], junk), mask)
    assert torch.equal(before, after)


@pytest.mark.parametrize("junk", [0.0, 1e9, math.nan])
def test_unknown_side_information_is_invisible_whatever_it_holds(junk):
    module, (targets, behaviours, mask) = attention(side_information=True), inputs()
    side, side_mask = known_cosines(mask)
    before = module(targets, behaviours, mask, side, side_mask)
    after = module(targets, behaviours, mask, side.masked_fill(~side_mask, junk), side_mask)
    assert torch.equal(before, after)


def test_an_empty_history_gives_zeros_and_a_finite_gradient():
    module, (targets, behaviours, mask) = attention(), inputs()
    pooled = module(targets, behaviours, mask)
    assert pooled[-1].tolist() == [[0.0] * E] * C
    pooled.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_requests_in_a_batch_do_not_see_each_other():
    module, (targets, behaviours, mask) = attention(), inputs()
    together = module(targets, behaviours, mask)
    for r in range(R):
        alone = module(targets[r : r + 1], behaviours[r : r + 1], mask[r : r + 1])
        torch.testing.assert_close(alone[0], together[r])


@pytest.mark.parametrize("width", [4, 64, 1024])
def test_products_begin_with_the_weight_of_a_number_at_any_width(width):
    generator = torch.Generator().manual_seed(2)
    targets, behaviours = torch.randn(2, 500, width, generator=generator)
    torch.manual_seed(0)
    parts = (targets * behaviours) @ TargetAttention(width).product.T
    assert 0.5 < parts.std() < 2


def test_a_lone_behaviour_is_the_whole_interest():
    module, (targets, behaviours, _) = attention(), inputs()
    mask = torch.zeros(R, L, dtype=torch.bool)
    mask[:, 2] = True
    pooled = module(targets, behaviours, mask)
    torch.testing.assert_close(pooled, behaviours[:, None, 2].expand(R, C, E))


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        (torch.ones(R, L), r"behaviour_mask must be bool \(3, 5\), got torch.float32"),
        (torch.ones(R, L + 1, dtype=torch.bool), r"got torch.bool \(3, 6\)"),
    ],
)
def test_a_wrong_mask_is_refused_by_name(mask, complaint):
    targets, behaviours, _ = inputs()
    with pytest.raises(ValueError, match=complaint):
        attention()(targets, behaviours, mask)


def test_masked_softmax_shares_one_over_the_real_places_only():
    scores = torch.tensor([[0.0, 0.0, math.log(2)], [5.0, 6.0, 7.0]])
    mask = torch.tensor([[True, False, True], [False, False, False]])
    torch.testing.assert_close(
        masked_softmax(scores, mask), torch.tensor([[1 / 3, 0, 2 / 3], [0, 0, 0]])
    )


@pytest.mark.parametrize("side_information", [True, False])
def test_side_information_comes_with_its_mask_exactly_where_it_was_built_in(side_information):
    module, (targets, behaviours, mask) = attention(side_information), inputs()
    side, side_mask = known_cosines(mask)
    wrong = [
        (side, None),
        (None, side_mask),
        (None, None) if side_information else (side, side_mask),
    ]
    for pair in wrong:
        with pytest.raises(ValueError, match="side and side_mask must be given exactly when"):
            module(targets, behaviours, mask, *pair)
