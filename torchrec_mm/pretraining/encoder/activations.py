"""Gradient checkpointing: the backward pass computes a block's activations again.

Model libraries offer it in train mode only or with switches of their own; backbones stay in eval
mode, so a block's forward is wrapped here.

Source: Chen et al., 2016, arXiv:1604.06174.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from torchrec_mm.pretraining.encoder.batch_norm import (
    SynchronisedBatchNorm,
    counted_rows,
    counted_rows_now,
)


def recompute_in_backward(blocks: Iterable[nn.Module]) -> None:
    """Keep only the inputs of each block for the backward pass; the outputs do not change."""
    for block in blocks:
        synchronised = any(isinstance(module, SynchronisedBatchNorm) for module in block.modules())
        contexts = {"context_fn": _counting_once} if synchronised else {}
        block.forward = partial(_recomputed, block.forward, contexts)


def _recomputed(forward: Callable, contexts: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # In eval mode nothing is random, so no random state has to be kept
    return checkpoint(
        forward, *args, use_reentrant=False, preserve_rng_state=False, **contexts, **kwargs
    )


def _counting_once() -> tuple[AbstractContextManager, AbstractContextManager]:
    """For the two runs of a block: the second counts the same rows and updates nothing."""
    return nullcontext(), counted_rows(counted_rows_now(), update=False)
