"""What can stand between ranks and the GPUs of their host: each in one line, with its cure.

Imports torch where it is asked and fbgemm nowhere, so that it answers where they cannot be loaded.
"""

import ctypes
import json
import os
from importlib.util import find_spec
from pathlib import Path

from torchrec_mm.environment import FBGEMM_BUILDS, TESTED, TESTED_FBGEMM, fbgemm_cure

# Compute capabilities that fbgemm-gpu's wheel holds code for. It holds none that a driver could
# translate, so one of them serves the same major number, from that minor one on, and no other.
CAPABILITIES = ((8, 0), (9, 0), (10, 0))
OLDEST_DRIVER = "580"  # which came with CUDA 13, of the tested torch
HIDING = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES; the last is Slurm's

# What the driver's cuInit answers from a stub, and where this process may see no device.
NO_DEVICE = (34, 100)

ON_THE_CPU = "or CUDA_VISIBLE_DEVICES= to train on the CPU"


def count() -> int:
    """How many GPUs torch can open; its own count tells how many the driver has."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def in_sight() -> list[str]:
    """The GPUs that this process sees, each as CUDA_VISIBLE_DEVICES would name it alone."""
    named, total = os.environ.get("CUDA_VISIBLE_DEVICES"), count()
    return named.split(",")[:total] if named else [str(index) for index in range(total)]


def are_hidden() -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves this process no GPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in HIDING


def build_problem() -> str | None:
    """Why fbgemm cannot compute on a GPU that torch sees."""
    package = find_spec("fbgemm_gpu")
    described = Path((package and package.origin) or "").parent / "docs" / "target.default.json.py"
    if not described.is_file():
        return None
    if json.loads(described.read_text(encoding="utf-8"))["variant"] != "cpu":
        return None
    cuda, cpu = FBGEMM_BUILDS
    return (
        f"fbgemm must be {cuda} where ranks take GPUs, got {cpu}, which is what an install without "
        f"an NVIDIA driver brings. Cure: make install FBGEMM=cuda, outside of .venv "
        f"{fbgemm_cure(cuda)}; {ON_THE_CPU}"
    )


def capability_problem(capability: tuple[int, int]) -> str | None:
    """Why fbgemm cannot compute on a GPU of that compute capability, (major, minor)."""
    major, minor = capability
    if any(major == known and minor >= first for known, first in CAPABILITIES):
        return None
    known = ", ".join(f"{major}.{minor}" for major, minor in CAPABILITIES)
    return (
        f"compute capability must be one that fbgemm-gpu {TESTED_FBGEMM} has code for, {known} or "
        f"a later one of the same major number, got {major}.{minor}. Cure: other GPUs; {ON_THE_CPU}"
    )


def driver_problem() -> str | None:
    """Why torch sees no GPU where the driver does; None where the driver sees none either."""
    if are_hidden():
        return None
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    failed = driver.cuInit(0)
    if failed in NO_DEVICE or (failed and not os.path.exists("/dev/nvidia0")):
        return None
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    found = f"one for CUDA {version.value // 1000}.{version.value % 1000 // 10}"
    return (
        f"NVIDIA driver must be {OLDEST_DRIVER} or newer for torch {TESTED['torch']}, got {found}"
        f"{f' that ends with error {failed}' if failed else ''}. Cure: a newer driver; {ON_THE_CPU}"
    )
