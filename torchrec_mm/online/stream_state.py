"""How far a stream of requests was read: what a checkpoint says besides the model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, write_json
from torchrec_mm.runs.delta import STREAM

REMEMBERED = "stream_remembered.npy"  # in a checkpoint, beside STREAM
ASIDE = ".stream"  # in the run folder: where checkpoints copy them from


@dataclass(frozen=True, kw_only=True)
class StreamState:
    """Where a follower goes on.

    done: files that are read, of those that are still in the folder. file, row: the file that is
    read, empty between two, and its next request. window: start of the newest window, Unix
    seconds, None before the first. requests, late, duplicates, set_aside: counts since the
    beginning, the last of files. delta: number of the last delta, at or before this checkpoint.
    """

    done: Sequence[str] = ()
    file: str = ""
    row: int = 0
    window: int | None = None
    requests: int = 0
    late: int = 0
    duplicates: int = 0
    set_aside: int = 0
    delta: int = 0

    def save(self, run: Path, remembered: np.ndarray) -> list[Path]:
        """Write both files below a run folder, for a checkpoint to copy; where they are.

        ``remembered``: (n,) int64 of ``Remembered.keys``.
        """
        files = [run / ASIDE / name for name in (STREAM, REMEMBERED)]
        write_json(files[0], asdict(self))
        with new_file(files[1]) as aside, aside.open("wb") as file:
            np.save(file, remembered, allow_pickle=False)
        return files

    @classmethod
    def load(cls, checkpoint: Path) -> tuple["StreamState", np.ndarray]:
        """What ``save`` wrote, of a checkpoint; InputError if it is missing or garbled."""
        try:
            said = read_json(checkpoint / STREAM)
            remembered = np.load(checkpoint / REMEMBERED, allow_pickle=False)
            return cls(**said | {"done": tuple(said["done"])}), remembered
        except (OSError, ValueError, TypeError, KeyError) as error:
            rule = f"{checkpoint} must be of a run that followed requests"
            raise InputError(f"{rule}: {error}") from error
