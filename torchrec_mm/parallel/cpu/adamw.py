"""torch's fused AdamW with less around it: of a small model's step, that is the larger part."""

from collections.abc import Callable

import torch
from torch import Tensor


class QuickAdamW(torch.optim.AdamW):
    """AdamW of ``fused=True``: the same numbers, bit for bit, the same state and groups.

    A step with a parameter that has no state or no gradient is torch's own.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do one, as torch does."""
        everything = [p for group in self.param_groups for p in group["params"]]
        if closure or any(p.grad is None or not self.state.get(p) for p in everything):
            for state in self.state.values():
                if "step" in state:  # each counts for itself there
                    state["step"] = state["step"].clone()
            return super().step(closure)
        for group in self.param_groups:
            states = [self.state[p] for p in group["params"]]
            steps = counted(states)
            torch._fused_adamw_(
                group["params"],
                [p.grad for p in group["params"]],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )
        return None

    # Else torch wraps it in marks for its profiler and hooks that nobody sets.
    step.hooked = True  # type: ignore[attr-defined]


def counted(states: list[dict[str, Tensor]]) -> list[Tensor]:
    """The number of steps of each parameter, this one included.

    Parameters that have always stepped together share one count: to raise one for each takes as
    long as the update.
    """
    first = states[0]["step"]
    others = [state for state in states if state["step"] is not first]
    if all(torch.equal(state["step"], first) for state in others):
        for state in others:
            state["step"] = first
        first += 1
    else:
        for state in states:
            state["step"] += 1
    return [state["step"] for state in states]
