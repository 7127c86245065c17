"""A folder belongs to the settings that it was begun with."""

from pathlib import Path

from torchrec_mm.documents import read_text
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file


def claimed(run_dir: Path, name: str, settings: str) -> str:
    """Take a new folder for some settings, or see whose it is.

    Returns:
        what its file ``name`` holds: ``settings``, if nothing was there.

    Raises:
        InputError: the folder holds something else.
    """
    claim = run_dir / name
    if claim.is_file():
        return read_text(claim)
    if run_dir.exists() and any(run_dir.iterdir()):
        raise InputError(f"run_dir {run_dir} holds something else: name a new folder")
    with new_file(claim) as aside:
        aside.write_text(settings, encoding="utf-8")
    return settings
