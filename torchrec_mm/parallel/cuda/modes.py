"""What a GPU does otherwise where it is asked to: TF32, and a network compiled for it."""

import torch
from torch import nn

from torchrec_mm.errors import InputError


def use_tf32(asked: bool, device: torch.device) -> None:
    """Multiply float32 matrices, and convolve, in TF32 from now on, or in float32.

    TF32 has 10 bits of mantissa; sums stay float32. PyTorch by itself would convolve in TF32.

    Raises:
        InputError: asked for where ranks compute on a CPU.
    """
    _check("tf32", asked, device)
    torch.backends.cuda.matmul.allow_tf32 = asked
    torch.backends.cudnn.allow_tf32 = asked


def compile_network(asked: bool, network: nn.Module, device: torch.device) -> None:
    """Let the first step compile ``network``, for batches of any size; its weights stay its own.

    Raises:
        InputError: asked for where ranks compute on a CPU, whose kernels are compiled already.
    """
    _check("compile", asked, device)
    if asked:
        network.compile(dynamic=True)


def _check(name: str, asked: bool, device: torch.device) -> None:
    if asked and device.type != "cuda":
        raise InputError(f"{name} must be false where ranks compute on a CPU, got true")
