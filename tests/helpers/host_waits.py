"""Devices that are not there, and steps on them that may not wait for them.

"cuda": PyTorch's fake tensors, which say what a GPU would copy from the host; no gradients, as
autograd asks the driver. "meta": shapes without values, through which gradients flow.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from torchrec_mm.kernels.build import SWITCH

CUDA, META = torch.device("cuda"), torch.device("meta")
EVERY_DEVICE = pytest.mark.parametrize("device", [CUDA, META], ids=str)

# What sends the host a number: a value, or how large the result is.
WAITING = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "repeat_interleave",  # how many are there in all
    "bincount",
    "equal",
    "is_nonzero",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
}
MASKABLE = {"index", "index_put", "index_put_", "_index_put_impl_"}
# No kernel runs for them.
FREE = {"detach", "alias", "empty", "empty_like", "new_empty", "empty_strided", "device"}


class Waits(AssertionError):
    """A step waits for its device; the traceback says where."""


@contextmanager
def pretended(device: torch.device) -> Iterator[None]:
    """For the block: tensors and modules can be made on ``device``, and tensors moved to it.

    Kernels of ours are switched off, as they need addresses: what they are made of runs.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, "0")
        with FakeTensorMode(allow_non_fake_inputs=True) if device == CUDA else nullcontext():
            yield


class NoWaits(TorchDispatchMode):
    """For the block: an operation that waits for ``device`` raises ``Waits``.

    launched: how many others of each name there were, each of which is a kernel or several.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.type = device.type
        self.launched: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name, given = func.overloadpacket.__name__, tensors_in([*args, *kwargs.values()])
        on_host = [tensor.device.type != self.type for tensor in given]
        to = torch.device(kwargs.get("device") or "cpu").type
        if to == self.type and any(on_host):
            raise Waits(f"{name} copies {[tuple(x.shape) for x in given]} to the device")
        if given and not all(on_host):
            if "device" in kwargs and to != self.type:
                raise Waits(f"{name} copies from the device")
            check(name, given, on_host)
        if name not in FREE and not func.is_view:
            self.launched[name] += not all(on_host) if given else to == self.type
        return func(*args, **kwargs)


def check(name: str, given: Sequence[Tensor], on_host: Sequence[bool]) -> None:
    """Raise ``Waits`` where the device must have answered before the host goes on."""
    if name in WAITING:
        raise Waits(f"{name} needs a value of the device")
    if name in MASKABLE:
        if any(x.dtype in (torch.bool, torch.uint8) for x in given[1:]):
            raise Waits(f"{name} by a mask needs to know how many are True")
        if any(on_host):
            raise Waits(f"{name} copies {[tuple(x.shape) for x in given]} to the device")
    # A number of Python's is an argument of the kernel; anything larger is copied.
    if any(x.ndim for x, there in zip(given, on_host, strict=True) if there):
        raise Waits(f"{name} mixes the device with the host: {[tuple(x.shape) for x in given]}")


def tensors_in(values: Any) -> list[Tensor]:
    """All of them, out of lists and tuples too."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, list | tuple):
        return [tensor for value in values for tensor in tensors_in(value)]
    return []
