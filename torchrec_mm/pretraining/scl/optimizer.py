"""Which parameter learns how fast, and when."""

import math
from typing import Any

from torch import nn
from torch.optim import Optimizer

from torchrec_mm.pretraining.encoder.backbones import Backbone


def parameter_groups(
    module: nn.Module,
    *,
    learning_rate: float,
    backbone_learning_rate: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups for AdamW of all parameters of ``module`` that are trained.

    Args:
        module: with backbones anywhere inside.
        learning_rate: peak of all that is no backbone's: heads, gate, temperatures.
        backbone_learning_rate: peak of each backbone's last layer.
        layer_decay: in (0, 1], what a layer's peak is multiplied by for the layer before it.
        weight_decay: of tensors of two or more dimensions; the others have none.

    Returns:
        Groups with "peak", see ``set_learning_rates``, which "lr" starts at.

    Source: layer-wise rates as in Clark et al., ICLR 2020, arXiv:2003.10555.
    """
    rates = _backbone_rates(module, backbone_learning_rate, layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            peak = rates.get(id(parameter), learning_rate)
            decay = weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((peak, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), parameters in groups.items()
    ]


def learning_rate_share(step: int, *, total: int, warmup_steps: int) -> float:
    """Share of the peak at one step: linear warm-up, then a cosine to zero.

    Args:
        step: steps done, in [0, total).
        total: steps of the whole run.
        warmup_steps: the first of them; the last of these is at the peak. 0: none.

    Returns:
        In (0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (1 + math.cos(math.pi * (step - warmup_steps) / (total - warmup_steps))) / 2


def set_learning_rates(optimizer: Optimizer, share: float) -> None:
    """Set every group to ``share`` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def _backbone_rates(module: nn.Module, last: float, layer_decay: float) -> dict[int, float]:
    """Peak by id of each backbone parameter."""
    return {
        id(parameter): last * layer_decay**depth
        for backbone in module.modules()
        if isinstance(backbone, Backbone)
        for depth, layer in enumerate(reversed(backbone.layers()))
        for parameter in layer
    }
