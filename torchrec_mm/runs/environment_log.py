"""environment.json of a run: what it ran on, one entry each time it is started or resumed."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from torchrec_mm.documents import read_json
from torchrec_mm.environment import FBGEMM_BUILDS
from torchrec_mm.files import write_json
from torchrec_mm.parallel.process_group import Worker

DISTRIBUTIONS = (
    *("torch", "torchvision", "torchrec", *FBGEMM_BUILDS, "numpy", "pyarrow"),
    *("timm", "sentence-transformers"),
)
CODE = Path(__file__).resolve().parents[2]  # folder that holds torchrec_mm/
CODE_FOLDERS = ("torchrec_mm", "apps", "torchx_components")
GIT_TIMEOUT_S = 10.0  # on a file system that hangs


def log_environment(path: Path, worker: Worker) -> None:
    """Append an entry to ``path``, a JSON list, whole or not at all. Collective.

    time: UTC. versions: by distribution, those that are installed; cuda is the one that torch was
    built for, None on a CPU build. code: see ``code_state``. command: what the first rank was
    started with, in directory. host: the first rank's. nodes: as the launcher counts them.
    devices: by host, one of each rank.
    """
    entry = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "code": code_state(CODE) if worker.is_first else None,
        "command": shlex.join(sys.orig_argv),
        "directory": os.getcwd(),
        "host": platform.node(),
        "world_size": worker.world_size,
        "nodes": int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        "devices": devices(worker),
    }
    if worker.is_first:
        before = read_json(path) if path.is_file() else []
        write_json(path, [*before, entry])


def versions() -> dict[str, str | None]:
    """Of Python and of the distributions that results depend on."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"cuda": torch.version.cuda}


def code_state(folder: Path) -> dict[str, Any] | None:
    """revision: of the checkout that ``folder`` is tracked in. changed: whether code differs.

    None where git is missing, does not answer, or does not track the code: an installed package
    may well lie inside a checkout of something else.
    """
    if _git(folder, "ls-files", "--error-unmatch", "torchrec_mm/runs/environment_log.py") is None:
        return None
    revision = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", *CODE_FOLDERS)
    if revision is None or changes is None:
        return None
    return {"revision": revision, "changed": bool(changes)}


def devices(worker: Worker) -> dict[str, list[str]]:
    """By host, the device of each of its ranks, in the order of ranks. Collective."""
    on_gpu = worker.device.type == "cuda"
    mine = platform.node(), torch.cuda.get_device_name(worker.device) if on_gpu else "cpu"
    every: list[Any] = [None] * worker.world_size
    dist.all_gather_object(every, mine)
    found: dict[str, list[str]] = {}
    for host, name in every:
        found.setdefault(host, []).append(name)
    return found


def _git(folder: Path, *words: str) -> str | None:
    """What a git command prints; None if it fails."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=GIT_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
