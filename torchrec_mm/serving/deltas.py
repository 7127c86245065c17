"""Which delta of a run comes next for a scorer."""

from pathlib import Path

from torchrec_mm.errors import InputError
from torchrec_mm.runs.checkpoint_folders import PUBLISHED, find_checkpoint
from torchrec_mm.runs.delta import DELTAS, Delta, last_delta, numbers_of, path_of, read_delta
from torchrec_mm.runs.run_folder import CHECKPOINTS


def next_delta(run: Path, number: int) -> Delta | None:
    """Delta ``number`` of a run; None if it is still to come.

    Raises:
        InputError: it is damaged, or gone: there are later ones, or a checkpoint behind it that
            has a delta of its own.
    """
    deltas = run / DELTAS
    if path_of(deltas, number).exists():
        return read_delta(deltas, number)
    newest = last_delta(find_checkpoint(run / CHECKPOINTS, PUBLISHED).folder)
    later = [n for n in (*numbers_of(deltas), newest or 0) if n > number]
    if later:
        path = path_of(deltas, number)
        raise InputError(f"{path} must be there: there is delta {max(later)} already")
    return None
