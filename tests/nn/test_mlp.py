"""The MLP: its layers by hand, and how a companion's hidden layers join."""

import pytest
import torch
from torch import nn

from torchrec_mm.nn.mlp import MLP


def test_layers_are_linear_then_silu_and_the_logit_is_linear():
    mlp = MLP(5, (4, 3))
    x = torch.randn(2, 7, 5)
    first = nn.functional.silu(mlp.layers[0](x))
    second = nn.functional.silu(mlp.layers[1](first))
    logit, hidden = mlp(x)
    assert logit.shape == (2, 7)
    torch.testing.assert_close(logit, mlp.logit(second)[..., 0])
    torch.testing.assert_close(hidden, [first, second])


def test_each_hidden_layer_of_a_companion_is_read_by_the_layer_after_it():
    mlp = MLP(5, (4, 3), companion_hidden=(2, 6))
    x, companion = torch.randn(2, 5), [torch.randn(2, 2), torch.randn(2, 6)]
    first = nn.functional.silu(mlp.layers[0](x))
    second = nn.functional.silu(mlp.layers[1](torch.cat([first, companion[0]], dim=1)))
    expected = mlp.logit(torch.cat([second, companion[1]], dim=1))[:, 0]
    logit, hidden = mlp(x, companion)
    torch.testing.assert_close(logit, expected)
    torch.testing.assert_close(hidden, [first, second])


@pytest.mark.parametrize("hidden", [(4, 4), (4,), ()])
def test_the_first_layer_can_be_worked_out_elsewhere(hidden):
    mlp, companion = MLP(5, hidden), None
    if hidden:
        mlp = MLP(5, hidden, companion_hidden=[2] * len(hidden))
        companion = [torch.randn(3, 2) for _ in hidden]
    x = torch.randn(3, 5)
    logit, own = mlp.rest(x @ mlp.first.weight.T + mlp.first.bias, companion)
    expected, expected_own = mlp(x, companion)
    torch.testing.assert_close(logit, expected)
    torch.testing.assert_close(own, expected_own)


def test_without_hidden_layers_it_is_logistic_regression():
    mlp = MLP(5, ())
    x = torch.randn(3, 5)
    logit, hidden = mlp(x)
    torch.testing.assert_close(logit, x @ mlp.logit.weight[0] + mlp.logit.bias)
    assert hidden == []


def test_a_companion_of_another_depth_is_refused():
    with pytest.raises(ValueError, match="companion_hidden must be as many as hidden, 2, got 1"):
        MLP(5, (4, 3), companion_hidden=(2,))
