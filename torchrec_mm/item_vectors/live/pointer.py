"""What readers of a live index read: one small file, replaced in one step.

``current.json`` names the space that is served, of each space its snapshot, and the states before,
newest first, for roll-backs. What a state names stays on disk; what none names may go.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json

FORMAT = 1
POINTER_FILE = "current.json"
KEEP = 3  # states that can be served again, the one served included


@dataclass(frozen=True)
class Snapshot:
    """What readers of a space begin with, and whether they go on from there.

    version: of the snapshot, 0 for none. sequence: of the last record that is in it.
    newest_s: Unix seconds at which that was written, 0.0 for never. follows: whether readers apply
    later records; not after a roll-back, which would bring back what it was to undo.
    """

    version: int = 0
    sequence: int = 0
    newest_s: float = 0.0
    follows: bool = True


@dataclass(frozen=True)
class State:
    """space: origin of the vectors that are served. snapshots: by origin of their space."""

    space: str
    snapshots: Mapping[str, Snapshot]

    def with_snapshot(self, space: str, snapshot: Snapshot) -> "State":
        """The same with another snapshot of one space."""
        return State(self.space, {**self.snapshots, space: snapshot})


@dataclass(frozen=True)
class Pointer:
    """now: what is served. before: the states that were, newest first."""

    now: State
    before: tuple[State, ...] = ()

    def moved(self, now: State, keep: int = KEEP) -> "Pointer":
        """To another state, of which and those before it ``keep`` stay: published ones alone."""
        states = self.before if now == self.now else (self.now, *self.before)
        published = [state for state in states if state.snapshots[state.space].version]
        return Pointer(now, tuple(published[: keep - 1]))


def read_pointer(index: Path) -> Pointer:
    """That of an index; InputError if there is none or it is garbled."""
    path = index / POINTER_FILE
    if not path.is_file():
        raise InputError(f"index must be a folder of a live index, got {index}: no {path.name}")
    raw = read_json(path)
    found = raw.get("format") if isinstance(raw, dict) else raw
    if found != FORMAT:
        raise InputError(f"{path} format must be {FORMAT}, got {found!r}")
    try:
        return Pointer(_state(raw["now"]), tuple(map(_state, raw["before"])))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} must name spaces and snapshots: {error!r}") from error


def write_pointer(index: Path, pointer: Pointer) -> None:
    """Replace that of an index: readers see the one before or this one."""
    states = {"now": _raw(pointer.now), "before": [_raw(state) for state in pointer.before]}
    write_json(index / POINTER_FILE, {"format": FORMAT} | states)


def current_snapshot(index: Path) -> Path:
    """Folder of what an index serves now, without what came since; InputError for none yet."""
    now = read_pointer(index).now
    version = now.snapshots[now.space].version
    if not version:
        rule = "vectors of a live index must be published first, by apps.publish_vectors"
        raise InputError(f"{rule}, got {index}")
    return version_folder(index, now.space, version)


def space_folder(index: Path, space: str) -> Path:
    """Of one vector space, by its origin; origins that no folder could be named by are hashed."""
    is_name = re.fullmatch(r"\w[\w.-]{0,99}", space)
    return index / "spaces" / (space if is_name else sha256(space.encode()).hexdigest()[:16])


def version_folder(index: Path, space: str, version: int) -> Path:
    return space_folder(index, space) / "versions" / f"{version:06}"


def _state(raw: Any) -> State:
    snapshots = {space: Snapshot(**fields) for space, fields in raw["snapshots"].items()}
    snapshots[raw["space"]]  # KeyError: it serves one of them
    return State(raw["space"], snapshots)


def _raw(state: State) -> dict[str, Any]:
    snapshots = {space: vars(snapshot) for space, snapshot in state.snapshots.items()}
    return {"space": state.space, "snapshots": snapshots}
