"""The item vectors that a batch sees: those of the moment when it began, and no others."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from torchrec_mm.data.stream.vector_source import Fetched, GatheredVectors
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.pointer import POINTER_FILE
from torchrec_mm.item_vectors.live.reader import IndexReader
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.every import Every

logger = logging.getLogger(__name__)
Latest = Callable[[], ItemVectors]


class VectorsOfBatch:
    """A ``VectorSource`` of one moment after another, each thread in its own.

    Of a moment only what a batch needs is copied. collective: as of ``VectorSource``.
    """

    collective = False

    def __init__(self, latest: Latest) -> None:
        """``latest``: gives the vectors as they are now, all of one origin."""
        self._latest, self._of_thread = latest, threading.local()

    def begin(self) -> ItemVectors:
        """The vectors that this thread sees until it begins again."""
        vectors = self._latest()
        self._of_thread.moment = GatheredVectors(vectors)
        return vectors

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        return self._moment.rows(item_ids)

    def gather(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        return self._moment.gather(rows)

    def fetch(self, candidate_rows: np.ndarray, behaviour_rows: np.ndarray) -> Fetched:
        return self._moment.fetch(candidate_rows, behaviour_rows)

    @property
    def _moment(self) -> GatheredVectors:
        moment: GatheredVectors = self._of_thread.moment
        return moment


class FollowedVectors:
    """The vectors of a ranker, and, of a live index, how they are kept up to date.

    In a ``with`` block a thread looks for newer ones every ``seconds``.
    """

    def __init__(self, vectors: ItemVectors, index: IndexReader | None, seconds: float) -> None:
        self._vectors, self.index = vectors, index
        self._refreshing = Every(self._refresh, seconds, "vectors")

    @classmethod
    def open(
        cls, trained: TrainedRun, given: Path | None, seconds: float
    ) -> "FollowedVectors | None":
        """Those of the run's origin, None if it uses none.

        ``given``: a folder of item vectors, or a live index; None: those of the run.

        Raises:
            InputError: of another origin, gone, or given to a run that uses none.
        """
        origin, folder = trained.model["vectors"], given or trained.config.get("vectors")
        if origin is not None and folder and (Path(folder) / POINTER_FILE).exists():
            reader = IndexReader(folder, origin)
            return cls(reader.vectors, reader, seconds)
        vectors = open_vectors(trained, given, "mapped")
        return None if vectors is None else cls(vectors, None, seconds)

    def latest(self) -> ItemVectors:
        """As they are now."""
        return self._vectors if self.index is None else self.index.vectors

    def __enter__(self) -> "FollowedVectors":
        if self.index is not None:
            self._refreshing.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        if self.index is not None:
            self._refreshing.__exit__(*raised)
            self.index.close()

    def _refresh(self) -> None:
        assert self.index is not None  # else nobody calls
        try:
            self.index.refresh()
        except (InputError, OSError) as error:  # those of before stay
            logger.error("vectors stay as they are: %s", error)
