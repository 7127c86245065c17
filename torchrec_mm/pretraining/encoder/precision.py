"""Numbers of half the size for encoders, and gradients that survive it."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """What encoders compute in; weights, vectors and losses stay float32.

    With fp16 the loss is scaled up, so that small gradients do not vanish, and a step whose
    gradients overflow is left out and the scale halved.

    Source: Micikevicius et al., ICLR 2018, arXiv:1710.03740.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """``name``: "float32", "bf16" or "fp16"."""
        self.dtype = DTYPES[name]
        self._device = device.type
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> AbstractContextManager:
        """For the block: matrix products and convolutions in this precision."""
        return torch.autocast(self._device, self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss``, scaled until ``step``."""
        self._scaler.scale(loss).backward()

    def step(
        self, optimizer: Optimizer, parameters: Iterable[nn.Parameter], clip_norm: float
    ) -> Tensor:
        """Scale the gradients back, clip them and update the parameters.

        Args:
            optimizer: of ``parameters``; its gradients are kept.
            parameters: whose gradients are clipped together.
            clip_norm: largest norm of all gradients, above 0; infinity clips nothing.

        Returns:
            Scalar float32, the norm before clipping; not finite where a step was left out.
        """
        self._scaler.unscale_(optimizer)
        norm = clip_grad_norm_(parameters, clip_norm)
        self._scaler.step(optimizer)
        self._scaler.update()
        return norm

    @property
    def leaves_steps_out(self) -> bool:
        """Whether gradients that overflow are no sign that training diverged."""
        return self._scaler.is_enabled()

    def state_dict(self) -> dict[str, Any]:
        """The scale and how long it has held; empty but for fp16."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._scaler.load_state_dict(state)
