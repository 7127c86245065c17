"""Fingerprints: whether a stage would make the same again, said in 64 hex digits.

Noticed: a flag that changes the result, whatever wrote it (command line, YAML, default); a stage
before; a file of the input added, removed, renamed, resized or written again. Not noticed: where
folders lie; the number of ranks; other versions of this code and its libraries (environment.json of
each run names them), so that an update does not throw away a week of training: remove a stage's
folder to have it made anew. A copy of the input that does not keep the times of change counts as
other input.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

VERSION = 1  # to be raised when the same flags come to mean something else


def fingerprint(
    app: str, settings: Mapping[str, Any], reads: Mapping[str, str], inputs: Mapping[str, str]
) -> str:
    """Of a stage.

    Args:
        app: the command.
        settings: its resolved flags that change what it makes; a Path, existing or not, stands for
            what it holds.
        reads: fingerprint of each stage that it reads, by flag.
        inputs: signature of each input from outside, by name.
    """
    described = {
        "version": VERSION,
        "app": app,
        "settings": {name: _plain(value) for name, value in settings.items()},
        "reads": dict(reads),
        "inputs": dict(inputs),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def path_signature(path: Path) -> str:
    """Of a file, or of all files below a folder; of nothing where there is nothing."""
    if path.is_dir():
        return files_signature((file for file in path.rglob("*") if file.is_file()), path)
    return files_signature([path] if path.exists() else [], path.parent)


def files_signature(files: Iterable[Path], below: Path) -> str:
    """Names the files by path below a folder, size and time of change; contents are not read."""
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(below).as_posix(), file) for file in files):
        status = file.stat()
        digest.update(json.dumps([name, status.st_size, status.st_mtime_ns]).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return path_signature(value) if isinstance(value, Path) else value
