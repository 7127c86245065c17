"""Score a test split as it would have been scored then: request after request, window by window.

Before a window of time begins, the vectors that have arrived by then are taken in; after it, what
learns from requests may learn from its own.

Shape letters: R requests, I impressions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.columns.parquet import INT64
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.items import ItemCatalogue
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.data.contract.requests import parse_requests
from torchrec_mm.replay.arrivals import Arrivals, created_s
from torchrec_mm.serving.scorer import Scorer

AT_ONCE = 256  # requests scored together


@dataclass(frozen=True)
class Replayed:
    """I impressions as they were scored.

    user_ids: (I,) int64. labels: (I,) int8. logits: (I,) float32. age_s: (I,) float64, of each item
    at its request, infinite where it is not known. has_vector: (I,) bool, of each item then.
    """

    user_ids: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    age_s: np.ndarray
    has_vector: np.ndarray


def read_in_order(folder: Path, columns: RequestColumns) -> pa.Table:
    """Requests with their labels, by time; InputError for one without a time.

    ``columns``: those of the ranker.
    """
    columns = replace(columns, has_labels=True)
    nullable = {name: kind for name, kind in columns.nullable.items() if name != "timestamp"}
    table = ParquetFolder(folder).read(columns.required | {"timestamp": INT64}, nullable)
    return table.sort_by("timestamp")


def windows(table: pa.Table, window_s: int) -> Iterator[tuple[int, pa.Table]]:
    """Requests of each window that has some, in order, and the Unix second at which it begins.

    ``table``: by time. ``window_s``: length; all begin at multiples of it.
    """
    times = to_numpy(table["timestamp"]) // window_s
    starts = np.flatnonzero(np.diff(times, prepend=times[0] - 1))
    for begin, end in zip(starts, [*starts[1:], len(times)], strict=True):
        yield int(times[begin]) * window_s, table.slice(begin, end - begin)


def replay(
    scorer: Callable[[], Scorer],
    table: pa.Table,
    items: ItemCatalogue,
    arrivals: Arrivals,
    window_s: int,
    learn: Callable[[int, pa.Table], None] | None = None,
) -> Replayed:
    """Score all requests, each by what was known when its window began.

    Args:
        scorer: gives what scores now, by the vectors of ``arrivals``.
        table: of ``read_in_order``.
        items: for the ages of items. arrivals: of their vectors. window_s: of time.
        learn: is given each window once it is scored; None: nothing learns.
    """
    parts = []
    for begin_s, window in windows(table, window_s):
        arrivals.until(begin_s)
        parts += [_scored(scorer(), part, items, arrivals) for part in _parts(window)]
        if learn is not None:
            learn(begin_s, window)
    joined = zip(*(vars(part).values() for part in parts), strict=True)
    return Replayed(*map(np.concatenate, joined))


def _parts(window: pa.Table) -> Iterator[pa.Table]:
    return (window.slice(begin, AT_ONCE) for begin in range(0, len(window), AT_ONCE))


def _scored(scorer: Scorer, table: pa.Table, items: ItemCatalogue, arrivals: Arrivals) -> Replayed:
    columns = replace(scorer.encoder.columns, has_labels=True)
    requests = parse_requests(table, "requests", columns, scorer.encoder.max_behaviours)
    owners = requests.candidates.owners()
    item_ids = requests.candidates.values
    assert requests.timestamps is not None  # as of read_in_order
    return Replayed(
        requests.user_ids[owners],
        requests.labels,
        scorer.logits(requests),
        requests.timestamps[owners] - created_s(item_ids, items),
        arrivals.vectors.rows(item_ids) >= 0,
    )
