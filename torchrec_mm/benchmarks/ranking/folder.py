"""A folder of a benchmark's data: made part by part, kept in ``--work_dir``, and used again."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tqdm import tqdm

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json

SIZE_FILE = "size.json"


@contextmanager
def kept_or_temporary(work_dir: Path | None) -> Iterator[Path]:
    """``work_dir``, or a folder that is gone after the block."""
    kept = None if work_dir is None else nullcontext(work_dir)
    with kept or tempfile.TemporaryDirectory(prefix="benchmark_data.") as folder:
        yield Path(folder)


def make_parts(
    folder: Path, size: Mapping[str, int], parts: Mapping[str, Callable[[Path], None]]
) -> None:
    """Make the parts that are not there; an interrupted call goes on after the last whole one.

    Args:
        folder: to make them in, under their names. size: of the data, noted in the folder.
        parts: each makes one at a path, whole or not at all, from those before it.

    Raises:
        InputError: the folder holds data of another size, or what is not ours.
    """
    check_size(folder, size)
    missing = [name for name in parts if not (folder / name).exists()]
    with tqdm(missing, desc="data", unit="part", disable=None) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            parts[name](folder / name)


def check_size(folder: Path, size: Mapping[str, int]) -> None:
    """Refuse a folder that is not ours to write to, else note in it what it will hold."""
    noted = folder / SIZE_FILE
    if not noted.exists():
        if folder.exists() and any(folder.iterdir()):
            rule = "work_dir must be a new folder or one of this benchmark"
            raise InputError(f"{rule}, got {folder}")
        write_json(noted, dict(size))
    found = read_json(noted)
    if found != size:
        raise InputError(f"work_dir must hold data of {size}, {folder} holds {found}")
