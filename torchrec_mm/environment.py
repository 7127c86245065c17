"""Which releases go together, and the one command that mends a set that does not.

Reads package metadata and imports nothing but the standard library, so that it still answers where
torch or fbgemm cannot be imported.
"""

import ctypes
import shlex
import sys
from importlib import metadata
from pathlib import Path

# Built against each other; the same pins stand in pyproject.toml (a test compares them).
TESTED = {"torch": "2.14.1", "torchvision": "0.29.1", "torchrec": "1.9.2"}
TESTED_FBGEMM = "1.9.0"

# Both builds install into one folder, fbgemm_gpu/: whichever came last has overwritten the other.
FBGEMM_BUILDS = ("fbgemm-gpu", "fbgemm-gpu-cpu")

# What `make install FBGEMM=...` may choose; the environment keeps the word in its file CHOICE.
CHOICES = dict(zip(("cuda", "cpu"), FBGEMM_BUILDS, strict=True))
CHOICE = ".fbgemm"


def has_nvidia_driver() -> bool:
    """Whether CUDA builds can load here: they link against the driver's management library."""
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def choice() -> str | None:
    """What `make install FBGEMM=...` chose for this environment; None where the driver decides."""
    file = Path(sys.prefix) / CHOICE
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def fbgemm_build() -> str:
    """The fbgemm distribution that belongs here: the only place where CPU or GPU is decided."""
    return CHOICES[choice() or ("cuda" if has_nvidia_driver() else "cpu")]


def other_fbgemm_build() -> str:
    """The fbgemm distribution that must not be installed here."""
    return next(build for build in FBGEMM_BUILDS if build != fbgemm_build())


def installed_version(distribution: str) -> str | None:
    """Version from the package metadata, without ``+cpu`` and the like; None if not installed."""
    try:
        return metadata.version(distribution).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def version_problem() -> str | None:
    """What is wrong with the installed releases, and the cure, in one line; None if nothing is.

    Imports none of them.
    """
    wanted = TESTED | {fbgemm_build(): TESTED_FBGEMM}
    found = {name: installed_version(name) for name in wanted}
    wrong = [name for name in wanted if found[name] != wanted[name]]
    complaints = [f"{name} must be {wanted[name]}, got {found[name] or 'none'}" for name in wrong]
    if installed_version(other_fbgemm_build()):
        where = f"{'an' if has_nvidia_driver() else 'no'} NVIDIA driver is"
        if choice():
            where = f"FBGEMM={choice()} was chosen"
        complaints.append(f"{other_fbgemm_build()} does not belong where {where}")
        wrong = [*wrong, fbgemm_build()]
    if not complaints:
        return None
    if found["torch"] is None or found["torchrec"] is None:
        return f"{'; '.join(complaints)}. Cure: make install"
    return f"{'; '.join(complaints)}. Cure: {_cure(wrong)}"


def fbgemm_cure(build: str = "") -> str:
    """One shell line that brings a build of fbgemm, the one that belongs here if empty."""
    if choice() == "cuda" and not has_nvidia_driver():
        return "to work where an NVIDIA driver is, or make install FBGEMM=cpu"
    return _cure([build or fbgemm_build()])


def _cure(wrong: list[str]) -> str:
    """One shell line that reinstalls ``wrong`` and touches nothing that is right."""
    pip = f"{shlex.quote(sys.executable)} -m pip"
    steps = []
    fbgemm = [build for build in FBGEMM_BUILDS if build in wrong]
    if fbgemm:  # both out first: either may hold the other's files
        steps.append(f"{pip} uninstall -y {' '.join(FBGEMM_BUILDS)}")
    torch_set = [f"{name}=={TESTED[name]}" for name in ("torch", "torchvision") if name in wrong]
    if torch_set:
        steps.append(f"{pip} install {' '.join(torch_set)}")
    bare = [f"torchrec=={TESTED['torchrec']}"] if "torchrec" in wrong else []
    bare += [f"{build}=={TESTED_FBGEMM}" for build in fbgemm]
    if bare:  # with its dependencies torchrec would fetch the CUDA build again
        steps.append(f"{pip} install --no-deps {' '.join(bare)}")
    return " && ".join(steps)
