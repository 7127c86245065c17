"""The scorer that answers, and how another one takes its place while requests go on."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np

from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.errors import InputError
from torchrec_mm.runs.checkpoint_folders import PUBLISHED, STATE, find_checkpoint
from torchrec_mm.runs.delta import DELTAS, path_of
from torchrec_mm.runs.run_folder import CHECKPOINTS
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.batcher import Scored
from torchrec_mm.serving.deltas import next_delta
from torchrec_mm.serving.every import Every
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.requests import together
from torchrec_mm.serving.scorer import Scorer

logger = logging.getLogger(__name__)
RECORDED = 64  # requests that another checkpoint is tried on
REST = 1.0  # after each of them, as a multiple of its time: requests have the cores meanwhile
TRIED_S = 5.0  # on a host that is busy those must do that were tried by then


class Current:
    """One reference to what scores; a batch keeps the one that it began with."""

    def __init__(
        self, trained: TrainedRun, load: Callable[[TrainedRun], Scorer], measures: Measures
    ) -> None:
        """Load the run's checkpoint. ``load``: makes its scorer; InputErrors pass through."""
        self._trained, self._load, self._measures = trained, load, measures
        self._recorded: deque[Requests] = deque(maxlen=RECORDED)
        self._published_s = time.time()
        self._scoring = threading.Lock()  # a delta is written between two batches
        self.scorer = load(trained)
        self._show(self.scorer.checkpoint / STATE)
        measures.age_s.set_function(lambda: time.time() - self._published_s)

    @property
    def checkpoint(self) -> str:
        """The name of what scores."""
        return self.scorer.checkpoint.name

    @property
    def step(self) -> int:
        return int(self.checkpoint.rpartition("-")[2])

    def score(self, parts: Sequence[Requests]) -> Scored:
        """The probabilities of a batch; for a ``MicroBatcher``."""
        with self._scoring:
            scorer = self.scorer
            found = scorer.probabilities(together(parts))
        if not np.isfinite(found).all():
            raise FloatingPointError(f"{scorer.checkpoint} scores NaN or infinity")
        self._recorded.append(parts[-1])
        ends = np.cumsum([part.num_impressions for part in parts])[:-1]
        return Scored(np.split(found, ends), scorer.checkpoint.name)

    @contextmanager
    def held(self) -> Iterator[Scorer]:
        """What scores now, in a block in which no delta changes it; batches wait meanwhile."""
        with self._scoring:
            yield self.scorer

    def take_newest(self) -> bool:
        """Put the run's newest published state in the place of this one, if it is another.

        By deltas, in their order, where the run has them; where one is missing or does not fit, and
        in other runs, by the newest published checkpoint.
        """
        if self.scorer.delta is not None:
            try:
                return self._take_deltas(self.scorer.delta)
            except (InputError, OSError, ValueError) as error:
                self._measures.deltas.labels("failed").inc()
                logger.error("a checkpoint is needed: %s", error)
        return self._take_checkpoint()

    def _take_deltas(self, last: int) -> bool:
        """Apply what came after delta ``last``, each all at once, between two batches."""
        taken = 0
        for number in count(last + 1):
            delta = next_delta(self._trained.path, number)
            if delta is None:
                return taken > 0
            self.scorer.check(delta)
            with self._scoring:
                self.scorer = self.scorer.changed(delta)
            taken += 1
            self._measures.deltas.labels("applied").inc()
            self._show(path_of(self._trained.path / DELTAS, number))
        return False

    def _take_checkpoint(self) -> bool:
        """Load the newest published one beside, and have it score the last requests.

        What fails leaves the old one where it is, says why, and is tried again the next time.
        """
        try:
            newest = find_checkpoint(self._trained.path / CHECKPOINTS, PUBLISHED).folder
            if newest == self.scorer.checkpoint:
                return False
            other = self._load(replace(self._trained, checkpoint=newest))
            difference = self._tried(other)
        except (InputError, OSError, ValueError, FloatingPointError) as error:
            self._measures.loads.labels("failed").inc()
            logger.error("%s goes on scoring: %s", self.checkpoint, error)
            return False
        before = self.checkpoint
        self.scorer = other
        self._measures.loads.labels("taken").inc()
        self._show(newest / STATE)
        logger.info(
            "%s scores in the place of %s; probabilities of the last requests differ by %.4f",
            self.checkpoint,
            before,
            difference,
        )
        return True

    def _show(self, file: Path) -> None:
        """What scores now, which came with ``file``."""
        self._measures.checkpoint_step.set(self.step)
        self._measures.delta.set(self.scorer.delta or 0)
        with suppress(OSError):  # that is gone already
            self._published_s = file.stat().st_mtime

    def _tried(self, other: Scorer) -> float:
        """Mean difference of the probabilities of the recorded requests, which warm it up."""
        differences, until = [np.zeros(1)], time.monotonic() + TRIED_S
        for requests in list(self._recorded):
            if (begin := time.monotonic()) > until:
                break
            found = other.probabilities(requests)
            if not np.isfinite(found).all():
                raise FloatingPointError(f"{other.checkpoint} scores NaN or infinity")
            differences.append(np.abs(found - self.scorer.probabilities(requests)))
            time.sleep(REST * (time.monotonic() - begin))
        return float(np.concatenate(differences).mean())


class Following(Every):
    """Looks for a newer state every ``seconds``; in a ``with`` block."""

    def __init__(self, current: Current, seconds: float) -> None:
        super().__init__(current.take_newest, seconds, "following")
