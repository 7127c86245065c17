"""The requests of one split of an encoded data set, cut into row groups and written."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from torchrec_mm.columns.ahead import in_order
from torchrec_mm.columns.npy_files import new_array
from torchrec_mm.data.encode.spool import Spool, Stretch
from torchrec_mm.data.encoded.checks import is_of_requests, list_kinds
from torchrec_mm.data.encoded.encoded import WEIGHT_SUMS

ROW_GROUP_BYTES = 2 << 20
GROUPS_PER_FILE = 64
ROW_BYTES = 4  # of a table row's number
PLAIN = {
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}

Mapped = Callable[[Stretch], tuple[pa.Table, Counter[str]]]


def write_split(
    folder: Path, spool: Spool, mapped: Mapped, bar: tqdm, has_weights: bool = False
) -> Counter[str]:
    """Write all requests in row groups of about ``ROW_GROUP_BYTES`` decoded, in order.

    A row group ends with the request that fills it; a file has ``GROUPS_PER_FILE`` of them. Plain
    pages without compression: reading them is little more than a copy. Each has a checksum.

    Args:
        folder: to create. spool: the split.
        mapped: gives a stretch of requests as a table, and counts by name that are summed up.
        bar: shown the requests of each file that is written.
        has_weights: whether the split has weights, whose sums lie beside the files.

    Returns:
        The sums.
    """
    folder.mkdir(parents=True)
    _write_lengths(folder / "lengths.npy", spool)
    if has_weights:
        _write_weight_sums(folder / WEIGHT_SUMS, spool)
    none = np.zeros(1 + spool.num_lists, np.int64)
    schema = mapped(Stretch.between(none, none))[0].schema
    blocks = zip(spool.blocks_of_lengths(), spool.blocks_of_bag_values(), strict=True)
    groups = _cut(blocks, schema, spool.num_lists)
    files = _files(folder, groups)
    sums: Counter[str] = Counter()
    for counts, requests in in_order(_write(path, schema, of, mapped) for path, of in files):
        sums.update(counts)
        bar.update(requests)
    return sums


def _files(folder: Path, groups: Iterable[Stretch]) -> Iterator[tuple[Path, list[Stretch]]]:
    """Which row groups go where."""
    remaining = iter(groups)
    number = 0
    while of_file := list(islice(remaining, GROUPS_PER_FILE)):
        yield folder / f"part-{number:05d}.parquet", of_file
        number += 1


def _write(
    path: Path, schema: pa.Schema, groups: list[Stretch], mapped: Mapped
) -> Iterator[tuple[Counter[str], int]]:
    """Write one file, once its only value is asked for."""
    sums: Counter[str] = Counter()
    requests = 0
    with pq.ParquetWriter(path, schema, **PLAIN) as writer:
        for group in groups:
            table, counts = mapped(group)
            writer.write_table(table, row_group_size=table.num_rows)
            sums.update(counts)
            requests += table.num_rows
    yield sums, requests


def _write_lengths(path: Path, spool: Spool) -> None:
    array = new_array(path, (spool.num_requests, spool.num_lists), np.dtype(np.int32))
    done = 0
    for lengths in spool.blocks_of_lengths():
        array[done : done + len(lengths)] = lengths
        done += len(lengths)
    array.flush()


def _write_weight_sums(path: Path, spool: Spool) -> None:
    array = new_array(path, (spool.num_requests, 2), np.dtype(np.float64))
    flat, done = array.reshape(-1), 0
    for sums in spool.blocks(WEIGHT_SUMS, len(flat)):
        flat[done : done + len(sums)] = sums
        done += len(sums)
    array.flush()


def _cut(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], schema: pa.Schema, num_lists: int
) -> Iterator[Stretch]:
    """Row groups of requests with these lengths, (n, num_lists) int32, and values in bags, (n,)."""
    fixed, of_each = _sizes(schema, num_lists)
    begin = end = np.zeros(1 + num_lists, np.int64)  # requests, and values of each list before
    filled = 0
    for lengths, bag_values in blocks:
        counts = np.concatenate([np.ones((len(lengths), 1), np.int64), lengths], axis=1)
        totals = end + np.cumsum(counts, axis=0)
        size = filled + np.cumsum(fixed + lengths @ of_each + ROW_BYTES * bag_values)
        base = 0
        while size[-1] - base >= ROW_GROUP_BYTES:
            row = int(np.searchsorted(size, base + ROW_GROUP_BYTES))
            yield Stretch.between(begin, totals[row])
            begin, base = totals[row], int(size[row])
        end, filled = totals[-1], int(size[-1]) - base
    if filled:
        yield Stretch.between(begin, end)


def _sizes(schema: pa.Schema, num_lists: int) -> tuple[int, np.ndarray]:
    """Decoded bytes of a request, offsets of lists included, and (num_lists,) of a value of each.

    ``schema``: further sequences in their order.
    """
    fixed, of_each = 0, np.zeros(num_lists, np.int64)
    kinds = list_kinds(schema.names)
    for field in schema:
        if not pa.types.is_list(field.type):
            fixed += field.type.byte_width
            continue
        fixed += 4
        if not is_of_requests(field.name):
            of_each[kinds[field.name]] += field.type.value_type.byte_width
    return fixed, of_each
