"""Work that one rank does for all."""

from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from torchrec_mm.errors import InputError

PATIENCE = timedelta(days=7)  # the others wait however long it takes


def on_first_rank(work: Callable[[], None]) -> None:
    """Call ``work`` on rank 0 while the others wait. Collective.

    Raises:
        InputError: that of ``work``, on every rank.
    """
    problem: list[str | None] = [None]
    together = dist.new_group(backend="gloo", timeout=PATIENCE)
    if dist.get_rank() == 0:
        try:
            work()
        except InputError as error:
            problem = [str(error)]
    dist.broadcast_object_list(problem, group=together)
    dist.destroy_process_group(together)
    if problem[0] is not None:
        raise InputError(problem[0])
