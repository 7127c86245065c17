"""The learning rate as a function of the step."""

from torchrec.optim.keyed import CombinedOptimizer


class WarmUp:
    """Raises all learning rates linearly over the first steps, and leaves them there.

    Step s of them, counted from 0, runs at (s + 1) / steps of the optimizer's own rates. Nothing
    of it needs saving.
    """

    def __init__(self, optimizer: CombinedOptimizer, steps: int) -> None:
        self.groups = [(group, group["lr"]) for group in optimizer.param_groups]
        self.steps = steps

    def set_for(self, step: int) -> None:
        """Prepare the step that comes next; the optimizer hands it on to the tables' kernels."""
        if self.steps:
            factor = min(1.0, (step + 1) / self.steps)
            for group, rate in self.groups:
                group["lr"] = rate * factor
