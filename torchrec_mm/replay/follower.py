"""A trainer beside the replay: it follows what was scored, and the scorer takes its deltas."""

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.commands import module_of
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.item_vectors.live.view import LiveVectors
from torchrec_mm.replay.arrivals import Arrivals
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.runs.delta import DELTAS, path_of
from torchrec_mm.runs.run_folder import CHECKPOINTS
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.scorer import Scorer

LOOK_S = 0.05  # between two looks for what the trainer has written


class Follower:
    """``apps.train_ranker --follow`` in a process of its own, and the scorer that follows it.

    In a ``with`` block. A window is learned from when a request of a later one has come, so what
    scores has learned from all windows but the last.
    """

    def __init__(
        self, trained: TrainedRun, data: Path, arrivals: Arrivals, folder: Path, window_s: int
    ) -> None:
        """Nothing is started yet.

        Args:
            trained: the run that it goes on from. data: folder of items/.
            arrivals: whose index it reads vectors from, as the scorer does.
            folder: for what it writes. window_s: of time, that it learns from at once.
        """
        self._items, self._arrivals, self._window_s = data / "items", arrivals, window_s
        self._run, self._spool = folder / "run", folder / "spool"
        self._said = folder / "said"
        self._spool.mkdir()
        self._files, self._windows, self._newest = 0, -1, -1
        self._command = [
            *(sys.executable, "-m", module_of("train_ranker"), "--start_from", str(trained.path)),
            *("--follow", str(self._spool), "--items", str(self._items)),
            *("--vectors", str(arrivals.index), "--run_dir", str(self._run)),
            *("--window_s", str(window_s)),
        ]

    def __enter__(self) -> "Follower":
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(self._command, stdout=said, stderr=said)
        try:
            self._wait(lambda: bool(list_checkpoints(self._run / CHECKPOINTS)))
            load = partial(Scorer.open, items=self._items, vectors=self._vectors)
            self._current = Current(TrainedRun.open(self._run, "latest"), load, Measures())
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()  # what it has not saved is not asked for
        self._process.wait()

    def scorer(self) -> Scorer:
        """What scores now."""
        return self._current.scorer

    def learn(self, begin_s: int, window: pa.Table) -> None:
        """Hand over what was scored, and take what was learned from whole windows of before."""
        with new_file(self._spool / f"{self._files:08d}.parquet") as aside:
            pq.write_table(window, aside)
        self._files += 1
        newest = window["timestamp"][-1].as_py() // self._window_s
        if newest > self._newest:
            self._newest, self._windows = newest, self._windows + 1
            number = self._windows
            self._wait(lambda: not number or path_of(self._run / DELTAS, number).exists())
            self._current.take_newest()

    def _vectors(self) -> LiveVectors:
        return self._arrivals.vectors

    def _wait(self, is_there: Callable[[], bool]) -> None:
        """Until the trainer has written something; InputError, with its words, if it ended."""
        while not is_there():
            if self._process.poll() is not None:
                lines = self._said.read_text(
                    encoding="utf-8", errors="replace"
                ).strip().splitlines() or ["nothing"]
                raise InputError(f"ranker must be one that can go on learning: {lines[-1]}")
            time.sleep(LOOK_S)
