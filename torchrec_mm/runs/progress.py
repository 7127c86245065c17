"""Progress of long work: a bar on a terminal, else a line now and then, so that a log tells too."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from torchrec_mm.parallel.process_group import Worker

WorkT = TypeVar("WorkT")
LINE_SECONDS = 30.0  # without a terminal, between two lines


def shown(work: Sequence[WorkT], label: str, unit: str, worker: Worker) -> Iterator[WorkT]:
    """Go through ``work``; the first rank shows on stderr how far it is with its share.

    Without a terminal: a line as the work begins, one every ``LINE_SECONDS``, one as it ends.
    Nothing is said of no work.
    """
    if not worker.is_first or not work:
        yield from work
    elif sys.stderr.isatty():
        yield from tqdm(work, label, unit=unit)
    else:
        began = said = time.monotonic()
        _say(label, unit, 0, len(work), 0.0)
        for done, each in enumerate(work, start=1):
            yield each
            now = time.monotonic()
            if done == len(work) or now - said >= LINE_SECONDS:
                said = now
                _say(label, unit, done, len(work), now - began)


def _say(label: str, unit: str, done: int, of: int, seconds: float) -> None:
    print(f"{label}: {done} of {of} {unit}s, {seconds:.0f} s", file=sys.stderr, flush=True)
