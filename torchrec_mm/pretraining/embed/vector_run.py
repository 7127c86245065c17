"""A run that makes item vectors: in parts aside, then the whole folder at once.

RUN_DIR.parts/ holds work.json, sample/ and vectors/ while the run lasts. The same command goes on
where it was killed, on any number of ranks, and ends with the same bytes (at one number of threads
a rank: sums of floats may differ between numbers of threads).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch.distributed as dist

from torchrec_mm.errors import InputError
from torchrec_mm.files import put, real
from torchrec_mm.item_vectors.writer import write_blocks
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.runs.resumable_parts import WORK_FILE, claim_parts, encode_parts, read_part
from torchrec_mm.targets import check_new_folder


class Items(Protocol):
    """What is embedded. num_items: of all parts together. fingerprint: of items and parts."""

    num_items: int
    fingerprint: str

    @property
    def parts(self) -> Sequence[object]:
        """In order; vectors are made of one after another."""


class VectorMaker(Protocol):
    """What vectors come from. width: D. encoder, modality, dtype: as ``write_blocks`` has them."""

    encoder_name: str
    modality: str
    dtype: str
    width: int

    def prepare(self, folder: Path) -> None:
        """What has to be there before the first part, kept in a folder; all ranks call it."""

    def make(self, part: int) -> dict[str, np.ndarray]:
        """One part, by its index: see ``EncoderVectors.make``."""

    def origin(self) -> str:
        """Of the vectors, once prepared."""


@dataclass(frozen=True)
class Pictures:
    """How many pictures a run met, how many it could not decode, and the first item of those."""

    met: int = 0
    corrupt: int = 0
    first_item: int | None = None

    def plus(self, part: dict[str, np.ndarray]) -> "Pictures":
        """With those of a part."""
        items = part["corrupt"]
        first = int(items[0]) if len(items) and self.first_item is None else self.first_item
        return Pictures(self.met + int(part["pictures"][0]), self.corrupt + len(items), first)

    def check(self, share: float, of: int) -> None:
        """InputError, with number and first, for more corrupt ones than a share of so many."""
        if self.corrupt > share * of:
            raise InputError(
                f"corrupt_share must be at least the share of pictures that cannot be decoded, "
                f"{self.corrupt} of {self.met}, the first of item_id {self.first_item}, got {share}"
            )


def parts_folder(run_dir: Path) -> Path:
    run_dir = real(run_dir)
    return run_dir.with_name(f"{run_dir.name}.parts")


def check_run_dir(run_dir: Path, items: Path) -> None:
    """Refuse a folder that cannot be made, or is there, unless a killed run only has to clear up.

    ``items``: the folder that is read.

    Raises:
        InputError: says why.
    """
    if not (parts_folder(run_dir).exists() and _is_made(run_dir)):
        check_new_folder(run_dir, "run_dir", [items])


def make_item_vectors(
    run_dir: Path,
    items: Items,
    maker: VectorMaker,
    work: dict[str, Any],
    corrupt_share: float,
    worker: Worker,
) -> Pictures:
    """Make the parts that are missing, then the folder; all ranks call it.

    Args:
        run_dir: the folder to create; the first rank does.
        items: to embed.
        maker: of the parts' vectors.
        work: names of all that the vectors depend on, to know the run by when it goes on.
        corrupt_share: of the pictures, that may be impossible to decode.
        worker: this rank.

    Raises:
        InputError: parts of other work, or too many corrupt pictures; the parts stay.
    """
    folder = parts_folder(run_dir)
    claim_parts(folder, work, worker)
    made = _is_made(run_dir)
    dist.barrier()  # no rank changes what another has yet to look at
    num_parts = len(items.parts)
    pictures = Pictures()
    if not made:
        maker.prepare(folder / "sample")
        make = _until_corrupt(maker, corrupt_share, items.num_items) if worker.is_first else None
        encode_parts(make or maker.make, num_parts, folder / "vectors", worker, "embed items")
        for part in range(num_parts):
            pictures = pictures.plus(read_part(folder / "vectors", part, "pictures", "corrupt"))
        pictures.check(corrupt_share, pictures.met)
    if worker.is_first:
        if not made:
            _write(run_dir, folder, num_parts, maker)
        _remove(folder)
    return pictures


def _is_made(run_dir: Path) -> bool:
    return run_dir.is_dir() and any(run_dir.iterdir())


def _until_corrupt(
    maker: VectorMaker, share: float, num_items: int
) -> Callable[[int], dict[str, np.ndarray]]:
    """``maker.make`` that gives up once too many pictures were corrupt, not after the last part."""
    seen = Pictures()

    def make(part: int) -> dict[str, np.ndarray]:
        nonlocal seen
        made = maker.make(part)
        seen = seen.plus(made)
        seen.check(share, num_items)
        return made

    return make


def _write(run_dir: Path, folder: Path, num_parts: int, maker: VectorMaker) -> None:
    """Join the parts in a folder beside them, then move it to its place in one step."""
    whole, parts = folder / "whole", folder / "vectors"
    ids = [read_part(parts, part, "item_ids")["item_ids"] for part in range(num_parts)]
    if not whole.exists():
        write_blocks(
            whole,
            np.concatenate(ids),
            (read_part(parts, part, "vectors")["vectors"] for part in range(num_parts)),
            width=maker.width,
            dtype=maker.dtype,
            encoder=maker.encoder_name,
            modality=maker.modality,
            origin=maker.origin(),
        )
    put(whole, real(run_dir))


def _remove(folder: Path) -> None:
    """Remove the parts; the file that marks the folder as ours goes last."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    (folder / WORK_FILE).unlink()
    folder.rmdir()
