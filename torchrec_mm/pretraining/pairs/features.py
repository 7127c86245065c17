"""What a frozen backbone makes of every distinct content: computed once, kept beside the content.

Shape letters: C distinct contents, F feature width, n rows asked for, N items, S searches.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.columns.npy_files import new_array
from torchrec_mm.data.content.packed import Contents
from torchrec_mm.files import new_folder
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.side import Inputs
from torchrec_mm.runs.resumable_parts import encode_parts, read_part

Lengths = Callable[[np.ndarray], np.ndarray]
Load = Callable[[np.ndarray, None], tuple[Inputs, np.ndarray]]
Encode = Callable[[Inputs], Tensor]

# The most contents that a rank computes again after an interruption. Few, so that ranks share a
# small catalogue evenly: of two parts, the one with the titles takes longer than that of queries.
PART_ROWS = 512


@dataclass(frozen=True)
class Features:
    """Features by row of the packed content.

    values: (C, F) float32, memory-mapped. place: (N + S,) int64, where a row's features are, -1
    where the content is missing. ok: (C,) bool, False where a picture could not be decoded.
    """

    values: np.ndarray
    place: np.ndarray
    ok: np.ndarray

    @classmethod
    def open(cls, folder: Path, contents: Contents) -> "Features":
        """Map what ``cache_features`` wrote."""
        values = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
        ok = np.load(folder / "ok.npy", allow_pickle=False)
        content = contents.content
        distinct = distinct_contents(contents)
        place = np.where(content >= 0, np.searchsorted(distinct, content), -1)
        return cls(values, place, ok)

    @property
    def width(self) -> int:
        """F."""
        return self.values.shape[1]

    @property
    def corrupt(self) -> int:
        """Pictures that could not be decoded."""
        return int((~self.ok).sum())

    def of(self, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Copy some: (n,) int64 rows that have a content -> (n, F) float32 and ok (n,) bool."""
        place = self.place[rows]
        return torch.from_numpy(self.values[place]), self.ok[place]


def distinct_contents(contents: Contents) -> np.ndarray:
    """(C,) int64: of each group of rows with equal contents the first, ascending."""
    rows = np.arange(len(contents.content))
    return rows[contents.content == rows]


def cache_features(
    folder: Path,
    contents: Contents,
    lengths: Lengths,
    load: Load,
    encode: Encode,
    batch_size: int,
    worker: Worker,
    label: str,
) -> Features:
    """Compute the features that are not there yet. Collective; ranks share the work and the disk.

    An interrupted call leaves whole parts of ``PART_ROWS`` contents, from which the next goes on.

    Args:
        folder: where they are kept; the name says of which backbone and which preprocessing.
        contents: of one modality.
        lengths, load: as of ``Source``. encode: inputs to (n, F) float32.
        batch_size: contents encoded at once.
        worker: this rank. label: what the progress bar says.
    """
    distinct = distinct_contents(contents)
    parts = [distinct[start : start + PART_ROWS] for start in range(0, len(distinct), PART_ROWS)]
    aside = folder.with_name(f"{folder.name}.parts-{PART_ROWS}")

    def one_part(index: int) -> dict[str, np.ndarray]:
        return _encode_part(parts[index], lengths, load, encode, batch_size)

    if not folder.exists():
        encode_parts(one_part, len(parts), aside, worker, label)
        if worker.is_first:
            _join_parts(folder, aside, len(parts), len(distinct))
    dist.barrier()
    if worker.is_first:
        shutil.rmtree(aside, ignore_errors=True)
    return Features.open(folder, contents)


@torch.no_grad()
def _encode_part(
    rows: np.ndarray, lengths: Lengths, load: Load, encode: Encode, batch_size: int
) -> dict[str, np.ndarray]:
    """Features and ok of one part, inputs of alike lengths together."""
    order = np.argsort(lengths(rows), kind="stable")
    features, good = [], np.empty(len(rows), dtype=bool)
    for start in range(0, len(rows), batch_size):
        batch = order[start : start + batch_size]
        inputs, good[batch] = load(rows[batch], None)
        features.append(encode(inputs).float().cpu().numpy())
    together = np.concatenate(features)
    back = np.empty_like(together)
    back[order] = together
    return {"features": back, "ok": good}


def _join_parts(folder: Path, aside: Path, num_parts: int, num_contents: int) -> None:
    """One array of all parts, in order; a part is in memory at a time."""
    with new_folder(folder) as new:
        good, values, start = [], None, 0
        for index in range(num_parts):
            part = read_part(aside, index)
            if values is None:
                shape = (num_contents, part["features"].shape[1])
                values = new_array(new / "features.npy", shape, np.dtype(np.float32))
            stop = start + len(part["features"])
            values[start:stop] = part["features"]
            good.append(part["ok"])
            start = stop
        assert values is not None  # items have contents of each modality packed
        values.flush()
        np.save(new / "ok.npy", np.concatenate(good))
