"""A stage: a command of ours, the folder that it makes, and whether that is whole."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchrec_mm.documents import read_json
from torchrec_mm.files import new_file, remove_unfinished, write_json

STAGE_FILE = "stage.json"


@dataclass(frozen=True)
class Stage:
    """One step of a chain.

    app: the command. flags: all that it is given. fingerprint: of all that its
    result depends on. folder: of the result, named by app and fingerprint.
    in_one_move: the command makes ``folder`` by renaming, so that it is whole once it is there.
    alone: only the first rank works, so one process a node is enough.
    results: files that the command leaves elsewhere, to be copied into ``folder``.
    """

    app: str
    flags: Mapping[str, Any]
    fingerprint: str
    folder: Path
    in_one_move: bool = False
    alone: bool = False
    results: tuple[Path, ...] = field(default=())

    @property
    def is_whole(self) -> bool:
        """Whether the result is there; what was only begun is not."""
        return (self.folder / STAGE_FILE).is_file() or (self.in_one_move and self.folder.exists())

    def clear_aside(self) -> None:
        """Remove what a command that was killed left of a folder that it had not moved yet."""
        if self.in_one_move:
            remove_unfinished(self.folder.parent, self.folder.name)

    def finish(self, seconds: float) -> None:
        """Note that the result is whole; every node of a job notes the same."""
        for file in self.results:
            with new_file(self.folder / file.name) as aside:
                shutil.copyfile(file, aside)
        flags = {name: _plain(value) for name, value in self.flags.items()}
        note = {"app": self.app, "fingerprint": self.fingerprint, "flags": flags}
        write_json(self.folder / STAGE_FILE, note | {"seconds": round(seconds, 1)})

    def seconds(self) -> float | None:
        """How long it took; None where a pipeline was killed before it noted that."""
        noted = self.folder / STAGE_FILE
        return read_json(noted)["seconds"] if noted.is_file() else None


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
