"""A second rank that is not there: what one rank's collectives see, without another process."""

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

COMBINED = {dist.ReduceOp.SUM: torch.add, dist.ReduceOp.MAX: torch.maximum}


def join(patch: pytest.MonkeyPatch, holds: Callable[[Tensor], Tensor]) -> None:
    """From now on reductions meet another rank: it ``holds(ours)`` where this one has ``ours``."""

    def all_reduce(ours: Tensor, op: dist.ReduceOp = dist.ReduceOp.SUM) -> None:
        ours.copy_(COMBINED[op](ours, holds(ours)))

    patch.setattr(dist, "all_reduce", all_reduce)
    patch.setattr(dist, "get_world_size", lambda: 2)
