"""Deltas: what a run changed from one published checkpoint to the next, a numbered file each.

A delta holds the rows of tables that differ in any bit, and the dense part whole but for MAKE,
which is frozen. It is reckoned from the two checkpoints alone, so that it can be written again,
byte for byte, by whoever has both. It is never changed, and counts for nobody who has not all of
those before it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.runs.checkpoint import read_checkpoint, read_row_blocks, read_rows
from torchrec_mm.runs.storage import IndexedReader, read_index

DELTAS = "deltas"
STREAM = "stream.json"  # in a checkpoint of a run that publishes deltas
HEADER = "delta"  # the one key of the file's metadata: of several, the order is not fixed
WORDS = (torch.int64, torch.int32, torch.int16, torch.uint8)  # the longer, the sooner compared
MODEL, DENSE, FROZEN = "model.", "network.", "network.make."


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a delta is.

    number: from 1, without gaps. step: of the checkpoint that it leads to. base_step: of the one
    that it starts from. follows: checksum of the delta before, empty where there is none.
    """

    number: int
    step: int
    base_step: int
    follows: str


@dataclass(frozen=True)
class Delta:
    """A delta in memory; keys are those of ``model.state_dict()``.

    rows: by table, (n,) int64 ascending and (n, ...) their values. dense: whole tensors.
    checksum: sha256 in hex of all of it.
    """

    header: Header
    rows: Mapping[str, tuple[Tensor, Tensor]]
    dense: Mapping[str, Tensor]

    @property
    def checksum(self) -> str:
        return _checksum(self.header, self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        """As the file names them."""
        parts = {f"rows/{key}": rows for key, (rows, _) in self.rows.items()}
        parts |= {f"values/{key}": values for key, (_, values) in self.rows.items()}
        return parts | {f"dense/{key}": tensor for key, tensor in self.dense.items()}


def difference(before: Path, after: Path, header: Header) -> Delta:
    """What leads from one checkpoint of a run to another. Needs no process group.

    Reads a block of each table at a time.

    Raises:
        InputError: a file of either is missing or cut short.
    """
    keys = [key for key in read_index(after) if key.startswith(MODEL)]
    tables = [key for key in keys if not key.startswith(MODEL + DENSE)]
    old = IndexedReader(before)
    changed = {key: _changed_rows(old, after, key) for key in sorted(tables)}
    dense = read_checkpoint(after, MODEL + DENSE)
    return Delta(
        header,
        {key.removeprefix(MODEL): found for key, found in changed.items() if len(found[0])},
        {
            name: tensor
            for key, tensor in sorted(dense.items())
            if not (name := DENSE + key).startswith(FROZEN)
        },
    )


def _changed_rows(before: IndexedReader, after: Path, key: str) -> tuple[Tensor, Tensor]:
    rows, values = [], []
    for start, block in read_row_blocks(after, key):
        old = read_rows(before, key, start, start + len(block))
        found = (_bytes(block) != _bytes(old)).any(1).nonzero()[:, 0]
        rows.append(found + start)
        values.append(block[found])
    return torch.cat(rows), torch.cat(values)


def _bytes(rows: Tensor) -> Tensor:
    """(n, ...) to (n, words) of integers: numbers that are equal may have different bits."""
    flat = rows.reshape(len(rows), -1).contiguous()
    size = flat.shape[1] * flat.element_size()
    word = next(kind for kind in WORDS if size % kind.itemsize == 0)
    return flat.view(word)


def last_delta(checkpoint: Path) -> int | None:
    """The number of the delta that leads to a published checkpoint, 0 for the first.

    None of a run that publishes none. InputError if it is garbled.
    """
    stream = checkpoint / STREAM
    if not stream.is_file():
        return None
    number = read_json(stream).get("delta")
    if type(number) is not int:
        raise InputError(f"{stream} must hold the number of a delta, got {number!r}")
    return number


def path_of(deltas: Path, number: int) -> Path:
    """The file of a delta in the folder ``deltas/`` of a run."""
    return deltas / f"delta-{number:08d}.safetensors"


def numbers_of(deltas: Path) -> list[int]:
    """Which deltas there are, ascending; the folder need not exist."""
    return sorted(int(path.stem.rpartition("-")[2]) for path in deltas.glob("delta-*.safetensors"))


def write_delta(deltas: Path, delta: Delta) -> None:
    """Write the file of a delta, whole or not at all."""
    said = asdict(delta.header) | {"sha256": delta.checksum}
    with new_file(path_of(deltas, delta.header.number)) as aside:
        save_file(delta.tensors(), aside, {HEADER: json.dumps(said, sort_keys=True)})


def read_delta(deltas: Path, number: int) -> Delta:
    """Read a delta, and find it whole.

    Raises:
        InputError: it is missing, cut short or garbled, or says it is another.
    """
    path = path_of(deltas, number)
    try:
        with safe_open(path, framework="pt") as file:
            said = json.loads(file.metadata()[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        checksum = said.pop("sha256")
        delta = _delta_of(Header(**said), tensors)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} must be a whole delta: {error}") from error
    if delta.header.number != number or delta.checksum != checksum:
        rule = f"{path} must be delta {number} as it was written"
        raise InputError(f"{rule}, got {delta.header.number}, checksum {delta.checksum[:12]}")
    return delta


def _delta_of(header: Header, tensors: Mapping[str, Tensor]) -> Delta:
    parts: dict[str, dict[str, Tensor]] = {"rows": {}, "values": {}, "dense": {}}
    for name, tensor in tensors.items():
        kind, _, key = name.partition("/")
        parts[kind][key] = tensor
    rows = {key: (own, parts["values"].pop(key)) for key, own in parts["rows"].items()}
    if parts["values"]:
        raise ValueError(f"values of no rows, {', '.join(parts['values'])}")
    return Delta(header, rows, parts["dense"])


def _checksum(header: Header, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(header), sort_keys=True).encode())
    for part in _parts(tensors):
        digest.update(part)
    return digest.hexdigest()


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    for name, tensor in sorted(tensors.items()):
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
        yield tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
