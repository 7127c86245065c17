"""Whether what was answered is what apps.predict says: a sample of it is scored again, beside.

By apps.predict itself, in a process of its own and of a low priority: requests go through
files, encoding, sharded tables and a frozen MAKE, of which the scorer shares nothing. What both
share is the network, how a batch is made of rows, and who parsed the body.

Shape letters: I impressions.
"""

import logging
import os
import subprocess
import sys
import threading
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from torchrec_mm.columns.jagged import values_and_offsets
from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.columns.parquet import write_table
from torchrec_mm.commands import module_of
from torchrec_mm.data.contract.request_columns import OF_ITEMS
from torchrec_mm.data.contract.served import OF_SERVER, SERVED
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_stored
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.request_log.rows import Answered, LogRows
from torchrec_mm.serving.vectors import Latest

logger = logging.getLogger(__name__)
MOST = 256  # bodies that are compared at once
PRIORITY = 10  # of 19: at 19 it would not end while the machine is busy
SALT = b"parity"  # so that the lot is another one than the log's


class Unsaid(Exception):
    """apps.predict gave no scores."""


@dataclass(frozen=True, kw_only=True)
class ParitySettings:
    """share: of the requests. seconds: between two comparisons."""

    share: float
    seconds: float


class Parity:
    """Compares now and then; in a ``with`` block."""

    def __init__(
        self,
        settings: ParitySettings,
        current: Current,
        items: Path,
        latest: Latest | None,
        rows: LogRows,
        measures: Measures,
    ) -> None:
        """Nothing is scored yet.

        Args:
            settings: how much, how often. current: what scores. items: folder, as the scorer has.
            latest: gives the item vectors of now, None for methods without.
            rows: of the ranker. measures: to be told.
        """
        self._settings, self._current, self._items = settings, current, items
        self._latest, self._rows, self._measures = latest, rows, measures
        self._sample: list[tuple[Answered, ItemVectors | None]] = []
        self._lock, self._end = threading.Lock(), threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="parity", daemon=True)

    def __enter__(self) -> "Parity":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._end.set()
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def moment(self) -> ItemVectors | None:
        """The item vectors of now; to be asked for before a request is scored."""
        return self._latest() if self._latest else None

    def add(self, answered: Answered, moment: ItemVectors | None) -> None:
        """Perhaps compare some requests, later; returns at once."""
        chosen = [n for n, name in enumerate(answered.request_ids) if self._is_chosen(name)]
        if not chosen:
            return
        with self._lock:
            if self.moment() is moment and len(self._sample) < MOST:
                self._sample.append((answered.take(chosen), moment))
                return
        self._count("skipped", len(chosen))  # by which vectors it was scored is not known

    def _is_chosen(self, request_id: str) -> bool:
        return zlib.crc32(SALT + request_id.encode()) < self._settings.share * 2**32

    def _run(self) -> None:
        while not self._end.wait(self._settings.seconds):
            with self._lock:
                sample, self._sample = self._sample, []
            groups: dict[tuple[str, int], list[tuple[Answered, ItemVectors | None]]]
            groups = defaultdict(list)
            for answered, moment in sample:
                groups[answered.checkpoint, id(moment)].append((answered, moment))
            found = [self._difference(group) for group in groups.values()]
            if compared := [each for each in found if each is not None]:
                self._measures.parity.set(max(compared))
                logger.info("apps.predict differs from what was answered by %.1e", max(compared))

    def _difference(self, group: Sequence[tuple[Answered, ItemVectors | None]]) -> float | None:
        """The largest of a group of one checkpoint and one moment; None if nothing was compared."""
        (first, moment), *_ = group
        try:
            table = self._known(pa.concat_tables([self._rows(each) for each, _ in group]))
            if not table.num_rows:
                return None
            again = self._predicted(table, first.checkpoint, moment)
        except (Unsaid, InputError, OSError, pa.ArrowException) as error:
            self._count("failed", sum(len(each.request_ids) for each, _ in group))
            logger.warning("what was answered could not be compared: %s", error)
            return None
        self._count("compared", table.num_rows)
        answered = to_numpy(values_and_offsets(table[SERVED])[0])
        return float(np.abs(again - answered).max())

    def _known(self, table: pa.Table) -> pa.Table:
        """Requests of the catalogue's items alone: apps.predict refuses others."""
        items = values_and_offsets(table["candidate_item_ids"])
        places = self._current.scorer.encoder.catalogue.index.rows(to_numpy(items[0]))
        known = np.logical_and.reduceat(places >= 0, items[1][:-1])
        self._count("skipped", int(np.count_nonzero(~known)))
        return table.filter(pa.array(known))

    def _predicted(
        self, table: pa.Table, checkpoint: str, moment: ItemVectors | None
    ) -> np.ndarray:
        """(I,) float32 by apps.predict; Unsaid if it gives none."""
        run_dir = self._current.scorer.checkpoint.parents[1]
        with TemporaryDirectory(prefix="parity") as scratch:
            folder = Path(scratch)
            flags = ["--run_dir", run_dir, "--items", self._items, "--requests", folder / "asked"]
            flags += ["--checkpoint", checkpoint.rpartition("-")[2].lstrip("0")]
            flags += ["--output", folder / "scores.parquet"]
            write_table(folder / "asked" / "part.parquet", table.drop_columns([*OF_SERVER]))
            if moment is not None:
                _write_vectors(folder / "vectors", moment, table)
                flags += ["--vectors", folder / "vectors"]
            self._predict([str(flag) for flag in flags])
            scores = pq.read_table(folder / "scores.parquet")
            return to_numpy(values_and_offsets(scores["click_probabilities"])[0])

    def _predict(self, flags: list[str]) -> None:
        command = [sys.executable, "-m", module_of("predict"), *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self._lock:
            if self._end.is_set():
                raise Unsaid("the server is ending")
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
            os.setpriority(os.PRIO_PROCESS, self._process.pid, PRIORITY)
        _, said = self._process.communicate()
        if self._process.returncode:
            last = (said.strip().splitlines() or [f"status {self._process.returncode}"])[-1]
            raise Unsaid(f"apps.predict: {last}")

    def _count(self, outcome: str, requests: int) -> None:
        self._measures.parity_requests.labels(outcome).inc(requests)


def _write_vectors(folder: Path, moment: ItemVectors, table: pa.Table) -> None:
    """Those of the requests' items, bit for bit; Unsaid if none of them has one."""
    lists = [table[name] for name in table.column_names if name.endswith(OF_ITEMS)]
    item_ids = np.unique(np.concatenate([to_numpy(values_and_offsets(each)[0]) for each in lists]))
    rows = moment.rows(item_ids)
    item_ids, rows = item_ids[rows >= 0], rows[rows >= 0]
    if not len(rows):
        raise Unsaid("none of the items has a vector")
    meta = moment.meta
    write_stored(
        folder,
        item_ids,
        [moment.gather(rows)[0]],
        width=meta.width,
        dtype=meta.dtype,
        encoder=meta.encoder,
        modality=meta.modality,
        origin=meta.origin,
    )
