"""The folder ``checkpoints/`` of a run: which are whole, which is the latest, which the best.

A checkpoint is written to ``.step-00000123`` and renamed to ``step-00000123`` once every file is on
disk, so what has that name is whole, and no other record is kept of it.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import flush, new_file, write_json
from torchrec_mm.runs.position import Position

STATE = "state.json"
PUBLISHED = "published"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk.

    folder: its path. position: how far training had come.
    metric: what the best is chosen by, higher is better; None where it was not measured.
    is_published: False for one that no scorer may take, as it did too badly while it was followed.

    >>> Checkpoint(folder / "step-00000100", Position(step=100), metric=None).position.step
    100
    """

    folder: Path
    position: Position
    metric: float | None
    is_published: bool = True


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """All whole checkpoints in a folder. What is being written is not among them.

    Args:
        folder: what a ``Checkpointer`` was given; it need not exist.

    Returns:
        The latest last.

    >>> list_checkpoints(folder)
    []
    """
    found = []
    for path in sorted(folder.glob("step-*")):
        state = read_json(path / STATE)
        is_published = state.get("published", True)  # runs of before held nothing back
        position = Position(**state["position"])
        found.append(Checkpoint(path, position, state["metric"], is_published))
    return sorted(found, key=lambda checkpoint: checkpoint.position.step)


def find_checkpoint(folder: Path, which: str = "latest") -> Checkpoint:
    """One of them.

    Args:
        folder: checkpoints/ of a run. which: "latest", "best" (of the highest ``metric``) or a
            number of steps.

    Returns:
        It, with the position that it was saved at.

    Raises:
        InputError: there is no such checkpoint.

    >>> find_checkpoint(folder, "best")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    torchrec_mm.errors.InputError: ... must hold a checkpoint: training has saved none
    """
    found = list_checkpoints(folder)
    if not found:
        raise InputError(f"{folder.parent} must hold a checkpoint: training has saved none")
    if which == "latest":
        return found[-1]
    if which == PUBLISHED:
        return published_of(found)[-1]
    if which == "best":
        best = best_of(found)
        if best is None:
            raise InputError(f"checkpoint must not be best: {folder.parent} measured no test AUC")
        return best
    for checkpoint in found:
        if which == str(checkpoint.position.step):
            return checkpoint
    steps = ", ".join(str(checkpoint.position.step) for checkpoint in found)
    raise InputError(f"checkpoint must be latest, best or one of {steps}, got {which}")


def best_of(found: list[Checkpoint]) -> Checkpoint | None:
    """The one of the highest metric, the earliest of equals; None where none has one."""
    measured = [(one.metric, one) for one in found if one.metric is not None]
    return max(measured, key=itemgetter(0), default=(None, None))[1]


def published_of(found: Sequence[Checkpoint]) -> list[Checkpoint]:
    """Those that a scorer may take; of every run the first is one."""
    return [checkpoint for checkpoint in found if checkpoint.is_published]


def aside_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written."""
    return folder / f".{folder_of(folder, step).name}"


def folder_of(folder: Path, step: int) -> Path:
    """The whole checkpoint of a step."""
    return folder / f"step-{step:08d}"


def complete_checkpoint(
    aside: Path,
    position: Position,
    metric: float | None,
    config_files: Sequence[Path],
    is_published: bool = True,
) -> None:
    """Complete what ``dcp`` wrote to ``aside`` and give it its name.

    Args:
        aside: as ``aside_of`` names it. position, metric, is_published: of the checkpoint.
        config_files: files to copy into it.
    """
    write_state(aside, position, metric, is_published)
    for path in config_files:
        with new_file(aside / path.name) as copy:
            shutil.copyfile(path, copy)
    flush(aside)
    aside.replace(aside.with_name(aside.name.removeprefix(".")))
    flush(aside.parent)


def write_state(
    checkpoint: Path, position: Position, metric: float | None, is_published: bool = True
) -> None:
    """Write beside a checkpoint's tensors what they are, or something else than before."""
    said = {"position": asdict(position), "metric": metric, "published": is_published}
    write_json(checkpoint / STATE, said)


def remove_old(folder: Path, keep: int, keep_published: int = 0) -> None:
    """Remove all but the last ``keep``, the best, and the last ``keep_published`` published."""
    found = list_checkpoints(folder)
    kept = [*found[-keep:], best_of(found)]
    kept += published_of(found)[-keep_published:] if keep_published else []
    for checkpoint in found:
        if checkpoint not in kept:
            going = checkpoint.folder.with_name(f".old-{checkpoint.folder.name}")
            checkpoint.folder.replace(going)
            shutil.rmtree(going)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process was writing or removing."""
    for path in folder.glob(".*step-*"):
        shutil.rmtree(path)
