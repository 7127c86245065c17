"""Publish: snapshot and what came since become the next snapshot, while readers go on."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.live.counts import Counts
from torchrec_mm.item_vectors.live.index import locked, open_log, read_space
from torchrec_mm.item_vectors.live.overlay import UNKNOWN, Overlay
from torchrec_mm.item_vectors.live.pointer import (
    KEEP,
    Pointer,
    Snapshot,
    State,
    read_pointer,
    space_folder,
    version_folder,
    write_pointer,
)
from torchrec_mm.item_vectors.live.view import LiveVectors, nothing_of
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import blocks_of, write_stored


def publish(index: Path, *, space: str | None = None, keep: int = KEEP) -> Snapshot:
    """Write the next snapshot of a space, then switch readers to it in one step.

    Killed at any time it leaves readers where they are; run again, it does the whole.

    Args:
        index: its folder.
        space: origin of the one to publish and to serve from now on; None: the one served.
        keep: states that can be gone back to, the new one included, at least 1; snapshots that
            none of them names are removed.

    Returns:
        What is served now; in a space without anything new, the snapshot that was there.

    Raises:
        InputError: no such space or index, another publishes, or not one item has a vector.
    """
    with locked(index):
        pointer = read_pointer(index)
        origin = pointer.now.space if space is None else space
        snapshot = _compacted(index, origin, pointer)
        now = State(origin, pointer.now.snapshots).with_snapshot(origin, snapshot)
        pointer = pointer.moved(now, keep)
        write_pointer(index, pointer)
        _remove_unnamed(index, pointer)
    return snapshot


def roll_back(index: Path) -> State:
    """Serve what was served before the last publish, and forget that one.

    Within a space, readers then have that snapshot and nothing that came after it, which would
    bring back what is to be undone, until the next publish. Back in the space of another encoder
    they follow its log as before.

    Returns:
        What is served now.

    Raises:
        InputError: nothing was published before, or another publishes.
    """
    with locked(index):
        pointer = read_pointer(index)
        if not pointer.before:
            raise InputError(f"roll_back must have a snapshot to go back to, got {index}")
        back, *before = pointer.before
        now = State(back.space, pointer.now.snapshots)
        if back.space == pointer.now.space:
            held = replace(back.snapshots[back.space], follows=False)
            now = now.with_snapshot(back.space, held)
        write_pointer(index, Pointer(now, tuple(before)))
    return now


def _compacted(index: Path, origin: str, pointer: Pointer) -> Snapshot:
    space = read_space(index, origin)
    before = pointer.now.snapshots[origin]
    base = nothing_of(space, space_folder(index, origin))
    if before.version:
        base = ItemVectors.open(version_folder(index, origin, before.version))
    with closing(open_log(index, origin)) as log:
        logged = log.since(before.sequence)
    if not len(logged.changes) and before.version and before.follows:
        return before
    overlay = Overlay.empty(space.width, base.dtype).extended(logged.changes)
    view = LiveVectors(base, overlay, logged.sequence, Counts())
    version = 1 + max(_versions(index, origin), default=0)
    _write(version_folder(index, origin, version), view)
    return Snapshot(version, logged.sequence, logged.newest_s or before.newest_s)


def _write(folder: Path, view: LiveVectors) -> None:
    """The items that have a vector, block by block."""
    kept = np.flatnonzero(view.overlay.find(view.snapshot.item_ids) == UNKNOWN)
    added = view.overlay.places >= 0
    rows = np.concatenate([kept, len(view.snapshot) + view.overlay.places[added]])
    item_ids = np.concatenate([view.snapshot.item_ids[kept], view.overlay.item_ids[added]])

    def blocks() -> Iterator[np.ndarray]:
        for block in blocks_of(len(rows), view.width):
            yield view.gather(rows[block])[0]

    write_stored(
        folder,
        item_ids,
        blocks(),
        width=view.width,
        dtype=view.meta.dtype,
        encoder=view.encoder,
        modality=view.modality,
        origin=view.origin,
    )


def _versions(index: Path, origin: str) -> list[int]:
    folder = space_folder(index, origin) / "versions"
    return [int(path.name) for path in folder.glob("[0-9]*")]


def _remove_unnamed(index: Path, pointer: Pointer) -> None:
    """Remove snapshots that no state names; readers that have one mapped go on with it."""
    states = (pointer.now, *pointer.before)
    for origin in pointer.now.snapshots:
        named = {state.snapshots[origin].version for state in states if origin in state.snapshots}
        for version in set(_versions(index, origin)) - named:
            shutil.rmtree(version_folder(index, origin, version))
