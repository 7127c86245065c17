"""Long work in parts: shared over the ranks, each part a file, whole or not there.

Killed at any moment and started again, on any number of ranks, it goes on with the parts that are
missing. What a part holds must depend on its number and on the work alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, refuse_existing, write_json
from torchrec_mm.parallel.process_group import LONG_WORK_TIMEOUT, Worker, host_group
from torchrec_mm.runs.progress import shown

WORK_FILE = "work.json"


def claim_parts(folder: Path, work: dict[str, Any], worker: Worker) -> None:
    """Note in a folder what its parts will be of, or find the same noted there; all ranks call it.

    Args:
        folder: seen by all ranks; made by the first rank if need be.
        work: names of all that the parts' bytes depend on, as JSON can say it.
        worker: this rank.

    Raises:
        InputError: the folder holds parts of other work, or something else.
    """
    noted = folder / WORK_FILE
    if noted.is_file():
        before = read_json(noted)
        for name, value in work.items():
            if before.get(name) != value:
                rule = f"{name} must stay {before.get(name)!r} to go on with {folder}"
                raise InputError(f"{rule}, got {value!r}: remove that folder to start over")
    elif worker.is_first:
        refuse_existing(folder)
        write_json(noted, work)


def encode_parts(
    encode: Callable[[int], dict[str, np.ndarray]],
    num_parts: int,
    folder: Path,
    worker: Worker,
    label: str,
) -> None:
    """Make the parts that ``folder`` lacks; all ranks call it and return when all parts are there.

    Args:
        encode: a part in [0, num_parts) to its arrays; no collective operation.
        num_parts: in all.
        folder: seen by all ranks; made if need be.
        worker: this rank.
        label: what progress is shown of.

    Raises:
        InputError: ``encode`` raised one, on whatever rank; the other parts stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    together = host_group(LONG_WORK_TIMEOUT)
    lacks = [not _file(folder, part).exists() for part in range(num_parts)]
    todo = torch.tensor(lacks, dtype=torch.uint8)
    dist.broadcast(todo, src=0, group=together)  # looked at before any rank adds to them
    mine = torch.nonzero(todo).flatten().tolist()[worker.rank :: worker.world_size]
    problem: str | None = None
    try:
        for part in shown(mine, label, "part", worker):
            with new_file(_file(folder, part)) as aside:
                save_file(encode(part), aside)
    except InputError as error:
        if worker.is_first:  # its words reach the user at once, and the launcher ends the others
            raise
        problem = str(error)
    problems: list[str | None] = [None] * worker.world_size
    dist.all_gather_object(problems, problem, group=together)
    dist.destroy_process_group(together)
    for problem in filter(None, problems):
        raise InputError(problem)


def read_part(folder: Path, part: int, *names: str) -> dict[str, np.ndarray]:
    """What ``encode`` gave for a part, all or named arrays; InputError if its file is not whole."""
    path = _file(folder, part)
    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in names or file.keys()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} must be a whole part: {error}") from error


def _file(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05}.safetensors"
