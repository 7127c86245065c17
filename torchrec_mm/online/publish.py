"""What a follower saves of a window, and what scorers may have of it.

A checkpoint comes first, and says whether it is published and which delta is the last. Its delta is
written after it, from it and the published one before, which stays until then: who is killed
between the two writes the same file when it goes on.
"""

from pathlib import Path

from torchrec_mm.errors import InputError
from torchrec_mm.online.stream_state import StreamState
from torchrec_mm.runs.checkpoint_folders import Checkpoint, list_checkpoints, published_of
from torchrec_mm.runs.delta import (
    DELTAS,
    Delta,
    Header,
    difference,
    numbers_of,
    path_of,
    read_delta,
    write_delta,
)
from torchrec_mm.runs.run_folder import CHECKPOINTS

KEPT_DELTAS = 256  # a scorer that missed more loads a checkpoint
KEPT_PUBLISHED = 2  # checkpoints: a delta is of two


def publish(run: Path) -> None:
    """Write the delta of the run's latest published checkpoint, if it has one that is not there.

    For one process at a time.

    Raises:
        InputError: the published checkpoint before is gone, or a file is garbled.
    """
    *others, latest = published_of(list_checkpoints(run / CHECKPOINTS))
    state, _ = StreamState.load(latest.folder)
    deltas = run / DELTAS
    if not state.delta or path_of(deltas, state.delta).exists():
        return
    if not others:
        rule = f"{run / CHECKPOINTS} must hold the published checkpoint before {latest.folder.name}"
        raise InputError(f"{rule}, of which delta {state.delta} is to be written, got none")
    write_delta(deltas, _delta(deltas, others[-1], latest, state.delta))
    for number in numbers_of(deltas)[:-KEPT_DELTAS]:
        path_of(deltas, number).unlink()


def _delta(deltas: Path, before: Checkpoint, latest: Checkpoint, number: int) -> Delta:
    header = Header(
        number=number,
        step=latest.position.step,
        base_step=before.position.step,
        follows=read_delta(deltas, number - 1).checksum if number > 1 else "",
    )
    return difference(before.folder, latest.folder, header)
