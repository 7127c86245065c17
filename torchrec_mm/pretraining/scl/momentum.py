"""Momentum encoder: the slow copy that computes keys."""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def momentum_copy(encoder: ModuleT) -> ModuleT:
    """A copy of ``encoder`` that takes no gradient; what is frozen is shared, not copied.

    A BatchNorm is copied, see ``update_momentum``; so is what holds one, but for its parameters.

    >>> encoder = torch.nn.Linear(2, 1)
    >>> any(weight.requires_grad for weight in momentum_copy(encoder).parameters())
    False
    """
    frozen: list[nn.Parameter | nn.Module] = [
        parameter for parameter in encoder.parameters() if not parameter.requires_grad
    ]
    # With a backbone goes its tokeniser, which takes longer to copy than all else.
    frozen += [module for module in encoder.modules() if _stays(module) and module is not encoder]
    return copy.deepcopy(encoder, memo={id(each): each for each in frozen}).requires_grad_(False)


def _stays(module: nn.Module) -> bool:
    """Whether it has weights, and training leaves it alone, whole."""
    learns = {parameter.requires_grad for parameter in module.parameters()}
    return learns == {False} and not any(isinstance(m, _BatchNorm) for m in module.modules())


def trained_pairs(slow: nn.Module, encoder: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Each trained parameter's momentum copy, and the parameter."""
    pairs = zip(slow.parameters(), encoder.parameters(), strict=True)
    return [(own, other) for own, other in pairs if other.requires_grad]


@torch.no_grad()
def update_momentum(slow: nn.Module, encoder: nn.Module, momentum: float) -> None:
    """slow <- momentum * slow + (1 - momentum) * encoder, for each parameter that is trained.

    Buffers are left alone: the running statistics of a BatchNorm describe the activations of its
    own weights, so the slow copy gathers its own as it runs.

    Args:
        slow: what ``momentum_copy(encoder)`` gave; changed in place.
        encoder: the encoder trained by gradient.
        momentum: in [0, 1); 0 copies the encoder.

    Source: He et al., CVPR 2020, arXiv:1911.05722, eq. 2.

    >>> encoder = torch.nn.Linear(1, 1)
    >>> slow = momentum_copy(encoder)
    >>> _ = torch.nn.init.constant_(encoder.bias, 1), torch.nn.init.constant_(slow.bias, 3)
    >>> update_momentum(slow, encoder, momentum=0.5)
    >>> slow.bias.item()
    2.0
    """
    update_pairs(trained_pairs(slow, encoder), momentum)


@torch.no_grad()
def update_pairs(pairs: Sequence[tuple[nn.Parameter, nn.Parameter]], momentum: float) -> None:
    """``update_momentum`` of ``trained_pairs``, found once: that takes longer than this."""
    if pairs:
        get_ema_multi_avg_fn(momentum)(*map(list, zip(*pairs, strict=True)), None)
