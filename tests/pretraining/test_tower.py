"""A training step of a tower against plain Python, and what it treats as negatives."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from torchrec_mm.pretraining.head import VECTOR_WIDTH
from torchrec_mm.pretraining.tower import (
    INITIAL_TEMPERATURE,
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    LossSettings,
    SearchBatch,
    Tower,
)

SETTINGS = LossSettings(momentum=0.9, bank_slots=6, triplet_weight=2.0, margin=0.2)


class Unit(nn.Module):
    """A linear encoder with unit outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(5, VECTOR_WIDTH)

    def forward(self, inputs):
        return F.normalize(self.linear(inputs), dim=1)


def batch(seed: int, positive_ids=(1, 2, 3, 1), query_ids=(7, 8, 8, 9)) -> SearchBatch:
    generator = torch.Generator().manual_seed(seed)
    hard_mask = torch.tensor([[True, False], [True, True], [False, False], [False, True]])
    return SearchBatch(
        query=torch.randn(4, 5, generator=generator),
        positive=torch.randn(4, 5, generator=generator),
        hard=torch.randn(4, 5, generator=generator),
        hard_mask=hard_mask,
        positive_ids=torch.tensor(positive_ids),
        query_ids=torch.tensor(query_ids),
    )


def tower(settings: LossSettings = SETTINGS) -> Tower:
    return Tower(Unit(), settings, gather=lambda rows: rows)


def loss_by_hand(step: Tower, b: SearchBatch, past: list[tuple[list[float], int, int]]) -> float:
    """``past``: key, item id, query id of everything in the bank."""
    query = step.encoder(b.query).tolist()
    keys = step.momentum_encoder(b.positive).tolist()
    hard = iter(step.momentum_encoder(b.hard).tolist())
    candidates = list(zip(keys, b.positive_ids.tolist(), b.query_ids.tolist(), strict=True)) + past

    def dot(a, c):
        return sum(x * y for x, y in zip(a, c, strict=True))

    total = 0.0
    for i, q in enumerate(query):
        own = math.exp(dot(q, keys[i]) / INITIAL_TEMPERATURE)
        wrong = sum(
            math.exp(dot(q, key) / INITIAL_TEMPERATURE)
            for key, item, asked in candidates
            if item != b.positive_ids[i] and asked != b.query_ids[i]
        )
        violations = [
            max(0.0, dot(q, next(hard)) - dot(q, keys[i]) + SETTINGS.margin)
            for real in b.hard_mask[i].tolist()
            if real
        ]
        triplet = sum(violations) / len(violations) if violations else 0.0
        total += -math.log(own / (own + wrong)) + SETTINGS.triplet_weight * triplet
    return total / len(query)


def test_the_loss_is_the_formula_over_batch_and_bank():
    step = tower()
    first, second = batch(1), batch(2, positive_ids=(3, 4, 5, 6), query_ids=(9, 10, 11, 12))
    expected = loss_by_hand(step, first, [])
    assert step(first)[0].item() == pytest.approx(expected, rel=1e-5)
    past = [x.tolist() for x in step.bank.contents()]
    expected = loss_by_hand(step, second, list(zip(*past, strict=True)))
    assert step(second)[0].item() == pytest.approx(expected, rel=1e-5)


def test_a_key_of_the_same_item_or_query_in_the_bank_is_no_negative():
    step = tower()
    step(batch(1, positive_ids=(50, 51, 52, 53), query_ids=(60, 61, 62, 63)))
    alone = tower()(batch(2))[0]
    shared_item = batch(2, positive_ids=(50,) * 4)
    assert step.bank.filled == 4
    for key in range(4):  # every bank key becomes one of item 50
        step.bank.item_ids[key] = 50
    masked = step(shared_item)[0]
    in_batch_only = tower()(shared_item)[0]
    assert masked.item() == pytest.approx(in_batch_only.item(), rel=1e-6)
    assert in_batch_only.item() < alone.item()


def test_keys_come_from_the_momentum_encoder_and_take_no_gradient():
    step = tower()
    step(batch(1))[0].backward()
    assert step.encoder.linear.weight.grad is not None
    assert all(p.grad is None for p in step.momentum_encoder.parameters())
    with torch.no_grad():
        step.momentum_encoder.linear.weight.neg_()
    step(batch(1))
    newest = step.bank.contents()[0][[4, 5, 0, 1]]
    assert torch.equal(newest, step.momentum_encoder(batch(1).positive))


def test_after_a_step_the_temperature_is_within_its_bounds_and_keys_move_slowly():
    for extreme, bound in ((-50.0, MIN_TEMPERATURE), (50.0, MAX_TEMPERATURE)):
        step = tower()
        before = step.momentum_encoder.linear.weight.clone()
        with torch.no_grad():
            step.log_temperature.fill_(extreme)
            step.encoder.linear.weight.add_(1.0)
        step.after_step()
        assert step.log_temperature.exp().item() == pytest.approx(bound)
        torch.testing.assert_close(step.momentum_encoder.linear.weight, before + 0.1)


def test_the_temperature_learns():
    step = tower()
    step(batch(1))[0].backward()
    assert step.log_temperature.grad.abs() > 0
