"""Row-per-impression files to one table: columns by names of the contract, each of its type."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.log_files import log_files
from torchrec_mm.columns.parquet import (
    BOOL,
    FLOAT64,
    INT64,
    INT64_LIST,
    STRING,
    check_columns,
)
from torchrec_mm.columns.parquet_folder import ParquetFolder, concat_files
from torchrec_mm.columns.reading import Footer
from torchrec_mm.columns.text_ids import MAP_SCHEMA, hash_texts
from torchrec_mm.columns.time_units import IN_A_SECOND
from torchrec_mm.data.contract.request_columns import OF_CANDIDATES
from torchrec_mm.data.contract.roles import further_columns
from torchrec_mm.data.logs.bad_rows import BadRows, bad_row_notes, check_bad_rows, merged
from torchrec_mm.data.logs.file_forms import FormedFile, form_files, found_out
from torchrec_mm.data.logs.forms import TEXTS, WHOLE_NUMBER, Typist
from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.logs.reading import OpenFile, open_file, pieces, read
from torchrec_mm.data.logs.times import LogTimes
from torchrec_mm.data.prepare.further import KINDS, of_text
from torchrec_mm.errors import InputError

REQUIRED = ("user_id", "item_id", "label")
LISTS = "behaviour_item_ids"
PAST = ("timestamp", LISTS)  # one of them at least
WEIGHT = "weight"
NAMED = (*REQUIRED, *PAST, WEIGHT)
TEXT_LIST = pa.list_(STRING)
ITEM_IDS = "_item_ids"  # ends the names of further behaviour sequences
WORDS = {INT64: "whole numbers", FLOAT64: "numbers", BOOL: "true or false", STRING: "text"}


@dataclass(frozen=True)
class ImpressionRows:
    """All good rows of a folder.

    table: NAMED columns that are there, int64 and list<int64>, times in seconds; then the weight
    and further columns, of ``further.KINDS``.
    texts: rows of MAP_SCHEMA of the ids that were text, by column. notes: on what was found out.
    """

    table: pa.Table
    texts: dict[str, list[pa.Table]]
    notes: tuple[str, ...]


def read_impressions(folder: Path, log_format: LogFormat) -> ImpressionRows:
    """Read a folder of Parquet, CSV or JSON lines.

    Raises:
        InputError: missing folder or column, wrong type or unit, more bad rows than may be, neither
            timestamp nor behaviours.
    """
    names = _names(log_format)
    log_format.check_names(names)
    given = [log_format.source(n) for n in names if n in REQUIRED or n in log_format.columns]
    files = [open_file(file, log_format.delimiter, given) for file in log_files(folder)]
    places, notes = _places(folder, files, log_format)
    footers = [_footer(file, at) for file, at in zip(files, places, strict=True)]
    schemas = cast(ParquetFolder, _Schemas(footers))
    kinds = further_columns([schemas], set(NAMED) - {WEIGHT}, KINDS)
    if WEIGHT in kinds and kinds[WEIGHT] not in (INT64, FLOAT64):
        raise InputError(f"{folder} column {WEIGHT} must be a number, got {kinds[WEIGHT]}")
    if not places[0].keys() & set(PAST):
        rule = f"{folder} must have a column timestamp or {LISTS}"
        raise InputError(f"{rule}, got {', '.join(files[0].names)}")
    scalars = [name for name in places[0] if name in NAMED and name not in (LISTS, WEIGHT)]
    of_folders = [name for name in kinds if files[0].is_partition(places[0][name])]
    formed = form_files(files, [*scalars, *of_folders], log_format)
    notes += found_out(formed, log_format)
    further = {name: kind for name, kind in kinds.items() if name not in of_folders}
    if files[0].is_text:
        further = dict.fromkeys(further, STRING)
    reading = _Reading(folder, log_format, further, files[0].is_text)
    for file, at in zip(formed, places, strict=True):
        reading.add(file, at)
    return reading.rows(notes)


def _names(log_format: LogFormat) -> list[str]:
    """Columns that a user may name: those of the contract, and features of the impression."""
    return [*NAMED, *(name for name in log_format.columns if name.startswith(OF_CANDIDATES))]


@dataclass(frozen=True)
class _Schemas:
    footers: list[Footer]


def _places(
    folder: Path, files: Sequence[OpenFile], log_format: LogFormat
) -> tuple[list[dict[str, int]], list[str]]:
    """Where each column is in each file, the same columns in all; a line on each left out."""
    found, left_out = [], {}
    for file in files:
        sources = {name: log_format.source(name) for name in _names(log_format)}
        at = {name: file.place(source) for name, source in sources.items() if file.has(source)}
        for place in set(range(len(file.names))) - set(at.values()):
            name = file.names[place].strip() if file.is_text else file.names[place]
            if not name:
                raise InputError(f"{file.path} column {place + 1} must have a name, or be left out")
            if name in sources:
                left_out[name] = f"columns takes {sources[name]} in its place"
            elif file.is_partition(place) and not _are_numbers(name, files):
                left_out[name] = "folders name no whole numbers by it"
            else:
                at[name] = place
        found.append(at)
        if at.keys() != found[0].keys():
            rule = f"{file.path} must have the columns of {files[0].path.name}"
            raise InputError(f"{rule} ({', '.join(found[0])}), got {', '.join(at)}")
    if any(file.is_text and LISTS in at for file, at in zip(files, found, strict=True)):
        raise InputError(f"{folder} column {LISTS} must be a list, which CSV has not")
    return found, [f"column {name} is left out: {why}" for name, why in left_out.items()]


def _are_numbers(partition: str, files: Sequence[OpenFile]) -> bool:
    values = pa.array([file.file.partitions[partition] for file in files], STRING)
    return pc.all(pc.match_substring_regex(values, WHOLE_NUMBER)).as_py()


def _footer(file: OpenFile, places: dict[str, int]) -> Footer:
    """As if a file were Parquet: what text has no type may be of any, partitions are numbers."""
    fields = []
    for name, place in places.items():
        kind = pa.null() if file.is_text else file.columns[place][1]
        fields.append((name, INT64 if file.is_partition(place) else kind))
    return Footer(file.path, pa.schema(fields), 1, {})


class _Reading:
    """What has been read so far."""

    def __init__(
        self,
        folder: Path,
        log_format: LogFormat,
        further: Mapping[str, pa.DataType],
        is_text: bool,
    ) -> None:
        """``further``: types of the columns without a form; ``is_text``: files have no types."""
        self.folder, self.log_format = folder, log_format
        self.further, self.is_text = further, is_text
        self.tables: list[pa.Table] = []
        self.texts: dict[str, list[pa.Table]] = defaultdict(list)
        self.bad: list[BadRows] = []
        self.times = LogTimes()
        self.count = 0

    def add(self, file: FormedFile, places: dict[str, int]) -> None:
        """Read a file."""
        path = file.opened.path
        name = str(path.relative_to(self.folder))
        with Typist(file.forms) as typist:
            for piece in pieces(file.opened):
                for raw, first in read(piece, places):
                    self.count += raw.num_rows
                    rows = pa.array(np.arange(first, first + raw.num_rows))
                    typed = typist(raw, path, rows)
                    for bad in typed.bad:
                        value = None if bad.value is None else str(bad.value)
                        where = f"{name} row {bad.first}"
                        self.bad.append(BadRows(bad.reason, bad.rows, where, value))
                    self._take(typed.good, file, f"{path} from row {first}")

    def _take(self, good: pa.Table, file: FormedFile, where: str) -> None:
        if "timestamp" in file.forms:
            self.times += LogTimes.of(good)
        for name in ("user_id", "item_id"):
            if file.forms[name] in TEXTS:
                self._keep(name, good[name], good[f"{name}_text"])
        columns = list(file.forms)
        if LISTS in good.column_names:
            columns.append(LISTS)
            if file.forms["item_id"] in TEXTS:
                good = self._hash_lists(good, where)
            good = check_columns(good, where, {LISTS: INT64_LIST})
        for name, kind in self.further.items():
            is_list = pa.types.is_list(kind)
            if name.endswith(ITEM_IDS) and kind == TEXT_LIST and file.forms["item_id"] in TEXTS:
                good = self._hash_lists(good, where, name)
            elif is_list:
                good = check_columns(good, where, {name: kind})
            else:
                good = check_columns(good, where, {}, {name: kind})
        self.tables.append(good.select([*columns, *self.further]))

    def _hash_lists(self, good: pa.Table, where: str, name: str = LISTS) -> pa.Table:
        good = check_columns(good, where, {name: TEXT_LIST})
        lists = good[name].combine_chunks()
        texts = lists.flatten()
        texts = pc.if_else(pc.equal(texts, ""), None, texts)  # refused like null, by whoever reads
        ids = hash_texts(texts)
        self._keep("item_id", ids, texts)
        offsets = pc.subtract(lists.offsets, lists.offsets[0])
        at = good.column_names.index(name)
        return good.set_column(at, name, pa.ListArray.from_arrays(offsets, ids))

    def _keep(self, name: str, ids: pa.Array, texts: pa.Array) -> None:
        table = pa.table([ids, texts], MAP_SCHEMA).drop_null()
        self.texts[name].append(table.group_by(["id", "text"]).aggregate([]))

    def rows(self, notes: Sequence[str]) -> ImpressionRows:
        """Everything, once all files are added; InputErrors of ``read_impressions``."""
        bad = merged(self.bad)
        if self.count == 0:
            raise InputError(f"{self.folder} must hold at least one row, got 0")
        check_bad_rows(self.folder, bad, self.count, self.log_format.bad_share)
        table = concat_files(self.tables)
        unit = self.times.unit(self.folder, self.log_format)
        if "timestamp" in table.column_names:
            seconds = np.floor_divide(table["timestamp"].to_numpy(), IN_A_SECOND[unit])
            at = table.column_names.index("timestamp")
            table = table.set_column(at, "timestamp", pa.array(seconds))
        label = table["label"].to_numpy()
        wrong = label[(label != 0) & (label != 1)]
        if len(wrong):
            raise InputError(f"{self.folder} column label must be 0 or 1, got {wrong[0]}")
        table, taken = self._told_kinds(table)
        notes = (*notes, *taken)
        told = (*notes, *self.times.notes(self.log_format, unit), *bad_row_notes(bad, self.count))
        return ImpressionRows(table, dict(self.texts), told)

    def _told_kinds(self, table: pa.Table) -> tuple[pa.Table, list[str]]:
        """Columns that have no type by what their values are, and a line on them."""
        if not (self.is_text and self.further):
            return table, []
        kinds = []
        for name in self.further:
            column = of_text(table[name])
            table = table.set_column(table.column_names.index(name), name, column)
            kinds.append(f"{name} {WORDS[column.type]}")
        if WEIGHT in self.further and table[WEIGHT].type not in (INT64, FLOAT64):
            raise InputError(f"{self.folder} column {WEIGHT} must be a number, got text")
        return table, [
            f"columns of CSV files are taken for what all their values are: {', '.join(kinds)}"
        ]
