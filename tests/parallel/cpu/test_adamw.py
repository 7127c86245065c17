"""AdamW with less around it does what torch's does."""

from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from torchrec_mm.parallel.cpu.adamw import QuickAdamW

SETTINGS = {"lr": 0.1, "weight_decay": 0.2, "fused": True}


def groups() -> list[dict]:
    """Two groups, one with a rate of its own."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 5), (7,), (), (64, 33))
    made = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    return [{"params": made[:3]}, {"params": made[3:], "lr": 0.3}]


def stepped(optimizer: torch.optim.Optimizer, missing: int | None = None) -> list[Tensor]:
    """Weights and state after five steps, in the third of which a gradient is missing."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            if step == 2 and number == missing:
                parameter.grad = None
        optimizer.param_groups[0]["lr"] *= 0.9
        optimizer.step()
    return parameters + [x for p in parameters for x in optimizer.state[p].values()]


@pytest.mark.parametrize("missing", [None, 1])
def test_it_learns_bit_for_bit_what_torchs_learns(missing):
    ours = stepped(QuickAdamW(groups(), **SETTINGS), missing)
    theirs = stepped(torch.optim.AdamW(groups(), **SETTINGS), missing)
    assert len(ours) == len(theirs) == 16
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("missing", "calls"), [(None, 0), (1, 1)])
def test_where_there_is_state_only_a_step_without_a_gradient_is_torchs_own(missing, calls):
    with mock.patch.object(torch.optim.AdamW, "step", autospec=True) as torchs:
        optimizer = QuickAdamW(groups(), **SETTINGS)
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            state = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros(()), **state}
        stepped(optimizer, missing)
    assert torchs.call_count == calls
