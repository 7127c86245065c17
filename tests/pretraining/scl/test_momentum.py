"""The momentum encoder against its closed form."""

import torch
from torch import nn

from torchrec_mm.pretraining.scl.momentum import momentum_copy, update_momentum


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


def test_after_n_steps_it_is_the_weighted_sum_of_all_encoders_so_far():
    encoder, m, steps = two_layers(), 0.9, 25
    slow = momentum_copy(encoder)
    history = [encoder[0].weight.detach().clone()]
    for step in range(steps):
        with torch.no_grad():
            encoder[0].weight.add_(torch.full_like(encoder[0].weight, 0.1 * step))
        history.append(encoder[0].weight.detach().clone())
        update_momentum(slow, encoder, m)
    since = sum((1 - m) * m ** (steps - n) * history[n] for n in range(1, steps + 1))
    expected = m**steps * history[0] + since
    torch.testing.assert_close(slow[0].weight.detach(), expected)


def test_it_takes_no_gradient_and_leaves_the_encoder_alone():
    encoder = two_layers()
    slow = momentum_copy(encoder)
    update_momentum(slow, encoder, 0.5)
    assert not any(p.requires_grad for p in slow.parameters())
    assert all(p.requires_grad for p in encoder.parameters())


def test_frozen_layers_are_shared_and_trained_ones_are_not():
    encoder = two_layers()
    encoder[0].requires_grad_(False)
    slow = momentum_copy(encoder)
    assert slow[0] is encoder[0]
    assert slow[1].weight is not encoder[1].weight


def test_a_frozen_layer_that_gathers_statistics_is_copied_but_for_its_weights():
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4).requires_grad_(False))
    slow = momentum_copy(encoder)
    assert slow[1].weight is encoder[1].weight
    assert slow[1].running_mean is not encoder[1].running_mean


def test_running_statistics_are_those_of_its_own_activations():
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    slow = momentum_copy(encoder)
    slow(torch.randn(8, 3) + 5)
    before = slow[1].running_mean.clone()
    update_momentum(slow, encoder, 0.5)
    assert torch.equal(slow[1].running_mean, before)
    assert (before != encoder[1].running_mean).all()


def test_an_encoder_that_is_frozen_whole_has_nothing_to_move():
    encoder = two_layers().requires_grad_(False)
    update_momentum(momentum_copy(encoder), encoder, 0.5)
