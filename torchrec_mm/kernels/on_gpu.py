"""Whether Triton's kernels run: on a GPU, where triton is, unless kernels are switched off."""

import os
from functools import cache
from importlib.util import find_spec

from torch import Tensor

from torchrec_mm.kernels.build import SWITCH


def runs_on_gpu(*tensors: Tensor | None) -> bool:
    """True where all are on a GPU that Triton can compute on; what is None has no say."""
    given = [tensor for tensor in tensors if tensor is not None]
    return all(t.is_cuda for t in given) and os.environ.get(SWITCH) != "0" and _is_installed()


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None
