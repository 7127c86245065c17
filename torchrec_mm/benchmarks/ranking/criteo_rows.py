"""One row an impression in flat arrays in memory, as TorchRec's examples read Criteo.

Shape letters: N rows, P numeric columns, F categorical columns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.encoded.encoded import EncodedRequests, RequestArrays
from torchrec_mm.data.stream.numbers import with_flags
from torchrec_mm.documents import read_json
from torchrec_mm.files import new_folder, write_json

TABLES_FILE = "tables.json"
ONES = "ones"  # names of columns without offsets
Batch = tuple[Tensor, KeyedJaggedTensor, Tensor]


def write_rows(encoded: Path, out: Path) -> None:
    """Both splits of an encoded data set, and the rows of each table."""
    with new_folder(out) as aside:
        for split in ("train", "test"):
            data = EncodedRequests(encoded, split)
            arrays = RequestArrays.concatenate([data.read(group) for group in data.groups])
            np.savez(aside / f"{split}.npz", allow_pickle=False, **_columns(data, arrays))
        write_json(aside / TABLES_FILE, data.num_rows)


def _columns(data: EncodedRequests, arrays: RequestArrays) -> dict[str, np.ndarray]:
    owners = arrays.candidates.owners()
    numbers = with_flags(arrays.request_numbers)
    assert numbers is not None  # there are some
    rows = {name: values[owners] for name, values in arrays.request_rows.items()}
    for name, values in zip(data.items.features, data.items.rows, strict=True):
        rows[name] = values[arrays.candidates.values]
    bags = {name: bag.take(owners)[0] for name, bag in arrays.request_bags.items()}
    return {
        "numbers": numbers.numpy()[owners],
        "labels": arrays.labels.astype(np.float32),
        **{f"{ONES}/{name}": values for name, values in rows.items()},
        **{f"values/{name}": bag.values for name, bag in bags.items()},
        **{f"offsets/{name}": bag.offsets for name, bag in bags.items()},
    }


@dataclass(frozen=True)
class CriteoRows:
    """A split in memory.

    numbers: (N, P) float32, values and flags of null. labels: (N,) float32. columns: (N,) table
    rows by name. bags: N lists of table rows by name.
    """

    numbers: np.ndarray
    labels: np.ndarray
    columns: dict[str, np.ndarray]
    bags: dict[str, Jagged]

    @classmethod
    def load(cls, path: Path) -> "CriteoRows":
        """What ``write_rows`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        names = [name.partition("/") for name in arrays]
        return cls(
            arrays["numbers"],
            arrays["labels"],
            {name: arrays[f"{ONES}/{name}"] for kind, _, name in names if kind == ONES},
            {
                name: Jagged(arrays[f"values/{name}"], arrays[f"offsets/{name}"])
                for kind, _, name in names
                if kind == "values"
            },
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int, rng: np.random.Generator | None) -> Iterator[Batch]:
        """Slices of ``size`` rows, in the order of a permutation or, without ``rng``, their own."""
        starts = np.arange(0, len(self), size)
        for start in starts if rng is None else rng.permutation(starts):
            yield self.slice(int(start), min(int(start) + size, len(self)))

    def slice(self, begin: int, end: int) -> Batch:
        """Numbers, categories and labels of some rows."""
        count = end - begin
        values = [column[begin:end] for column in self.columns.values()]
        lengths = [np.ones(count * len(values), np.int32)]
        for bag in self.bags.values():
            offsets = bag.offsets[begin : end + 1]
            values.append(bag.values[offsets[0] : offsets[-1]])
            lengths.append(np.diff(offsets).astype(np.int32))
        categories = KeyedJaggedTensor(
            keys=[*self.columns, *self.bags],
            values=torch.from_numpy(np.concatenate(values, dtype=np.int64)),
            lengths=torch.from_numpy(np.concatenate(lengths)),
            stride=count,
        )
        numbers, labels = (torch.from_numpy(x[begin:end]) for x in (self.numbers, self.labels))
        return numbers, categories, labels


def table_rows(folder: Path) -> dict[str, int]:
    """Rows of each table, by its column."""
    return read_json(folder / TABLES_FILE)
