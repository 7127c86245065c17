"""python3 -m torchrec_mm.install: make or mend .venv, with the build of fbgemm that fits here.

Called by make under any Python from 3.10 to 3.13; needs nothing but that and pip. Takes up an
interrupted run where it stopped. The variable FBGEMM, cuda or cpu, chooses the build: as for GPU
nodes, on a login node without any.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
EXTRAS = (
    *("pretrained", "neighbours", "live", "serving", "benchmark", "spark", "kubernetes", "test"),
)


def main() -> int:
    """Under the caller's Python: make the environment. Inside it: install the packages."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        print(
            f"error: Python must be 3.10 to 3.13, got {found}. Name one: make PYTHON=python3.12",
            file=sys.stderr,
        )
        return 2
    chosen = os.environ.get("FBGEMM", "")
    if chosen not in ("", "cuda", "cpu"):
        print(f"error: FBGEMM must be cuda or cpu, got {chosen}", file=sys.stderr)
        return 2
    try:
        if Path(sys.prefix) == VENV:
            keep_choice(chosen)
            forget_half_installed(Path(sysconfig.get_path("purelib")))
            install_packages()
            say_what_works()
        else:
            make_environment()
            _run(PYTHON, "-m", "torchrec_mm.install")
    except subprocess.CalledProcessError as error:
        return error.returncode  # it has said why itself
    return 0


def make_environment() -> None:
    """Create .venv with a pip inside; one that works already is kept."""
    if PYTHON.exists() and _succeeds(PYTHON, "-m", "pip", "--version"):
        return
    print("preparing .venv: about 7 GB, a few minutes", flush=True)
    venv = (sys.executable, "-m", "venv", "--clear", VENV)
    if not _succeeds(*venv):  # Debian's Python comes without ensurepip: lend it the caller's pip
        _run(*venv, "--without-pip")
        _run(sys.executable, "-m", "pip", "--python", PYTHON, "install", "pip")


def keep_choice(chosen: str) -> None:
    """Have the build of fbgemm be the chosen one from now on; empty leaves it what it was."""
    from torchrec_mm.environment import CHOICE

    if chosen:
        (Path(sys.prefix) / CHOICE).write_text(chosen, encoding="utf-8")


def say_what_works() -> None:
    """The doctor's report; where the packages cannot be loaded by choice, just that."""
    from torchrec_mm.environment import choice, has_nvidia_driver

    if choice() == "cuda" and not has_nvidia_driver():
        print("installed for hosts with an NVIDIA driver: try python -m apps.doctor on one")
    else:
        _run(sys.executable, "-m", "apps.doctor")


def forget_half_installed(site_packages: Path) -> None:
    """Drop the metadata of packages whose unpacking was cut short, so that pip does them again.

    pip writes INSTALLER after everything that a package brings.
    """
    for info in site_packages.glob("*.dist-info"):
        if not (info / "INSTALLER").exists():
            shutil.rmtree(info)


def install_packages() -> None:
    """Install pyproject's dependencies; torchrec without the fbgemm build it asks for itself."""
    from torchrec_mm.environment import fbgemm_build, installed_version, other_fbgemm_build

    ours = requirements()
    pins = {name_of(requirement): requirement for requirement in ours}
    fbgemm = pins["fbgemm-gpu"].replace("fbgemm-gpu", fbgemm_build())
    if installed_version(other_fbgemm_build()):
        _pip("uninstall", "-y", fbgemm_build(), other_fbgemm_build())
    _pip("install", "--no-deps", pins["torchrec"], fbgemm)
    torchrecs = [r for r in metadata.requires("torchrec") or [] if "extra ==" not in r]
    apart = {"torchrec", "fbgemm-gpu"}
    rest = [r for r in ours + torchrecs if name_of(r) not in apart]
    _pip("install", "--no-warn-conflicts", *rest)


def requirements() -> list[str]:
    """What pyproject.toml asks for, extras included."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for extra in EXTRAS for line in project["optional-dependencies"][extra]]
    return project["dependencies"] + extras


def name_of(requirement: str) -> str:
    """``fbgemm_gpu >=1`` -> ``fbgemm-gpu``."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", *arguments)


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True)


def _succeeds(*command: object) -> bool:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
