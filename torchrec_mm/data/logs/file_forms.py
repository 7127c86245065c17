"""Which form each column of each file of a log has; ids are of one kind in all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.parquet import INT64, STRING, same_kind
from torchrec_mm.columns.text_ids import MAPS
from torchrec_mm.data.logs import forms
from torchrec_mm.data.logs.log_format import ID_COLUMNS, LogFormat
from torchrec_mm.data.logs.reading import OpenFile, pieces, read
from torchrec_mm.errors import InputError

TEXTS = ("event", "request_id")  # columns that say what they say, and are no ids of tables


@dataclass(frozen=True)
class FormedFile:
    """A file; places and forms of the columns that are read, by names of the contract."""

    opened: OpenFile
    places: Mapping[str, int]
    forms: dict[str, str]


def form_files(
    files: Sequence[OpenFile], names: Sequence[str], log_format: LogFormat
) -> list[FormedFile]:
    """Find the columns ``names`` and their forms in every file.

    Ids in CSV are text where ``text_ids`` says so, and where none of the first ones in the first
    file that has any is a whole number; a whole number after those is bad.

    Raises:
        InputError: a column is missing or of a type that it cannot have, or one of ids is text in
            one file and numbers in another.
    """
    places = [{name: file.place(log_format.source(name)) for name in names} for file in files]
    found = [
        {name: _form(file, name, at[name], log_format) for name in names}
        for file, at in zip(files, places, strict=True)
    ]
    for name in set(names) & set(ID_COLUMNS):
        _agree(name, files, places, found)
    return [FormedFile(*each) for each in zip(files, places, found, strict=True)]


def text_ids(file: FormedFile) -> list[str]:
    """Which ids are text; the same in all files of a log."""
    return [name for name in ID_COLUMNS if file.forms.get(name) in forms.TEXTS]


def found_out(files: Sequence[FormedFile], log_format: LogFormat) -> list[str]:
    """A line on each thing that nobody said: delimiters, ids that are text."""
    notes = found_delimiters(files, log_format)
    for name in text_ids(files[0]):
        notes.append(f"{name} is text: numbers stand for it, and ids/{MAPS[name]} leads back")
    return notes


def found_delimiters(files: Sequence[FormedFile], log_format: LogFormat) -> list[str]:
    """A line on each delimiter that nobody said."""
    delimiters = {file.opened.delimiter for file in files} if not log_format.delimiter else set()
    return [
        f"fields of CSV files are taken to be divided by {delimiter!r}"
        for delimiter in sorted(delimiters - {"", ","})
    ]


def _form(file: OpenFile, name: str, place: int, log_format: LogFormat) -> str:
    if file.is_text or file.is_partition(place):
        if name in ID_COLUMNS:
            return forms.TEXT if name in log_format.text_ids else forms.DIGITS
        if name in TEXTS:
            return forms.STRING_FORM
        return forms.DIGITS_OR_ISO if name == "timestamp" else forms.DIGITS
    column, kind = file.columns[place]
    where = f"{file.path} column {column}"
    if name in ID_COLUMNS:
        form, wanted = forms.id_form(kind), "int64 or text"
    elif name == "timestamp":
        form, wanted = forms.time_form(kind), "int64, a time, or text that is a date of ISO 8601"
    elif name in TEXTS:
        form, wanted = forms.STRING_FORM if same_kind(kind, STRING) else None, "string"
    else:
        form, wanted = forms.WHOLE if same_kind(kind, INT64) else None, "int64"
    if form is None:
        raise InputError(f"{where} must be {wanted}, got {kind}")
    return form


def _agree(
    name: str,
    files: Sequence[OpenFile],
    places: Sequence[Mapping[str, int]],
    found: Sequence[dict[str, str]],
) -> None:
    """One kind of ids in all files; those that have no type, or are CSV, take it."""
    if all(each[name] == forms.DIGITS for each in found) and _is_text(name, files, places):
        for each in found:
            each[name] = forms.WORDS
    first: int | None = None
    for number, (file, at) in enumerate(zip(files, places, strict=True)):
        if pa.types.is_null(file.columns[at[name]][1]):
            continue
        first = number if first is None else first
        if (found[number][name] in forms.TEXTS) != (found[first][name] in forms.TEXTS):
            rule = f"{file.path} column {file.names[at[name]]} must be numbers or text"
            raise InputError(f"{rule} as in {files[first].path}, got the other")
    for number, file in enumerate(files):
        if first is not None and pa.types.is_null(file.columns[places[number][name]][1]):
            found[number][name] = found[first][name]


def _is_text(name: str, files: Sequence[OpenFile], places: Sequence[Mapping[str, int]]) -> bool:
    """Whether the first values are text, and none of them a whole number."""
    for file, at in zip(files, places, strict=True):
        for piece in pieces(file):
            for table, _ in read(piece, {name: at[name]}):
                values = table[name].filter(pc.not_equal(pc.utf8_trim_whitespace(table[name]), ""))
                if len(values):
                    return not pc.any(pc.match_substring_regex(values, forms.WHOLE_NUMBER)).as_py()
    return False
