"""Live indexes in tests: a small space, and changes in a few words."""

from pathlib import Path

import numpy as np

from torchrec_mm.item_vectors.live.index import create_index, open_log
from torchrec_mm.item_vectors.live.log import Changes, Log, Space

SPACE = Space(width=3, dtype="int8", encoder="scl", modality="text", origin="scl-text-1")
OTHER = Space(width=2, dtype="float32", encoder="scl", modality="text", origin="scl-text-2")

# item id, version, and what to fill the vector with, or None for a deletion
Event = tuple[int, int, int | None]


def changes(*events: Event, space: Space = SPACE) -> Changes:
    """What the events would have a log write."""
    item_ids, versions, fills = zip(*events, strict=True) if events else ((), (), ())
    return Changes(
        np.array(item_ids, np.int64),
        np.array(versions, np.int64),
        np.array([fill is None for fill in fills], bool),
        np.array([[fill or 0] * space.width for fill in fills], space.dtype).reshape(
            len(events), space.width
        ),
    )


def new_index(folder: Path, *events: Event, log: str = "lmdb") -> tuple[Path, Log]:
    """An index of ``SPACE``, nothing of which is published, and its log, with events written."""
    index = folder / "index"
    create_index(index, SPACE, log)
    opened = open_log(index, SPACE.origin)
    opened.write(changes(*events), SPACE.origin)
    return index, opened
