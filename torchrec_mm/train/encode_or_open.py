"""Where a command's requests come from: an encoded data set, or raw ones that are encoded first."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.files import remove_unfinished
from torchrec_mm.parallel.process_group import Worker, on_first_rank


def check_source(data: Path | None, encoded: Path | None) -> None:
    """For a config's ``__post_init__``: exactly one of the two must be given."""
    if (data is None) == (encoded is None):
        raise ValueError(f"either data or encoded must be given, got {data} and {encoded}")


def reads_of(data: Path | None, *folders: Path | None) -> list[Path]:
    """What a training reads, of its flags: nothing that it makes may lie there."""
    return [*([data / "items", data / "requests"] if data else []), *filter(None, folders)]


@contextmanager
def encoded_requests(
    data: Path | None,
    encoded: Path | None,
    aside: Path,
    worker: Worker,
    splits: tuple[str, ...],
    reuse: bool = False,
    **how: Any,
) -> Iterator[Path]:
    """An encoded data set for the block. Collective.

    Args:
        data: raw requests, encoded by the first rank; None where ``encoded`` is there already.
        aside: where to encode to; gone when the block ends without an exception.
        splits: what to encode. how: further arguments of ``encode_folder``.
        reuse: take what an interrupted run of the same config left at ``aside``.

    Raises:
        InputError: what ``encode_folder`` refuses, on every rank.
    """
    if encoded is not None:
        yield encoded
        return
    assert data is not None  # one of the two is given
    first_writes(aside, partial(encode_folder, data, splits, **how), reuse)
    yield aside
    dist.barrier()
    if worker.is_first:
        shutil.rmtree(aside, ignore_errors=True)


def first_writes(folder: Path, write: Callable[..., None], reuse: bool = False) -> None:
    """Have the first rank call ``write(out=folder)``; the others wait for it. Collective.

    ``folder``: what to write, anew even if it is there, unless it is to ``reuse``.

    Raises:
        InputError: what ``write`` refuses, on every rank.
    """

    def write_anew() -> None:
        if not (reuse and folder.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            remove_unfinished(folder.parent, folder.name)
            write(out=folder)

    on_first_rank(write_anew)
