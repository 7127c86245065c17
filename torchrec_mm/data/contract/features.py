"""Categorical columns: integers, text and Booleans become int64 ids; null is a value of its own.

An integer is its own id, False is 0 and True is 1. The id of a text is 64 bits of a hash that is
the same on every machine and in every release; texts that share one are found and refused.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.numbers import to_arrow, to_numpy
from torchrec_mm.columns.parquet import BOOL, INT64, STRING
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.roles import further_columns
from torchrec_mm.errors import InputError

NULL = -0x6E75_6C6C_6E75_6C6C  # the id of null; no other value may have it
CATEGORIES = (INT64, BOOL, STRING)
CATEGORY_LISTS = (pa.list_(INT64), pa.list_(STRING))


class TextIds:
    """Ids of the texts of one column; each text that was asked for is kept, once."""

    def __init__(self, known: pa.Array | None = None) -> None:
        """``known``: texts that are there before any is asked for, null among them or not."""
        self._ids: dict[str, int] = {}
        if known is not None:
            self.ids(known)

    def ids(self, texts: pa.Array) -> np.ndarray:
        """(n,) int64 ids of strings, ``NULL`` where there is none; from several threads if need be.

        Texts are compared byte by byte: neither case nor space nor accent is made equal.
        """
        encoded = texts.dictionary_encode()
        of_texts = [self._id(text) for text in encoded.dictionary.to_pylist()]
        places = pc.fill_null(encoded.indices, len(of_texts))
        return np.array([*of_texts, NULL], np.int64)[to_numpy(places)]

    def _id(self, text: str) -> int:
        found = self._ids.get(text)
        if found is None:
            found = self._ids[text] = hash_of_text(text)
        return found

    def check(self, column: str) -> None:
        """InputError, naming ``column``, if two texts share an id, or one has that of null."""
        ids, order = self._sorted()
        twice = np.flatnonzero(np.diff(ids[order]) == 0)
        if len(twice):
            texts = [*map(repr, self._ids), "null"]
            one, other = (texts[order[twice[0] + place]] for place in (0, 1))
            raise InputError(f"{column} must not hold both {one} and {other}, they have one id")

    def texts(self, ids: np.ndarray) -> pa.Array:
        """(n,) large_string, the text of each id, null for ``NULL``; ids that were given out."""
        all_ids, order = self._sorted()
        rows = order[np.searchsorted(all_ids, ids, sorter=order)]
        return pa.array([*self._ids, None], pa.large_string()).take(to_arrow(rows))

    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts and, the last, that of null; and their order."""
        ids = np.array([*self._ids.values(), NULL], np.int64)
        return ids, np.argsort(ids, kind="stable")


def hash_of_text(text: str) -> int:
    """Signed 64 bits."""
    digest = blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True)
class Categorical:
    """A further column of categories, or of lists of them.

    kind: its promised type, of ``CATEGORIES`` or ``CATEGORY_LISTS``. text_ids: of text, else None.
    """

    kind: pa.DataType
    text_ids: TextIds | None = None

    @classmethod
    def known(cls, texts: pa.Array | None, is_list: bool = False) -> "Categorical":
        """A column as a model knows it; ``texts``: what it has seen, None for no text column."""
        kind = INT64 if texts is None else STRING
        known = None if texts is None else TextIds(texts)
        return cls(pa.list_(kind) if is_list else kind, known)

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """What may be read for it: a Boolean has the ids of 0 and 1."""
        return (INT64, BOOL) if self.kind in (INT64, BOOL) else (self.kind,)

    def ids(self, values: pa.Array, where: str) -> np.ndarray:
        """(n,) int64 ids of the column's values, or of those of its lists.

        Raises:
            InputError: the integer that stands for null, naming ``where``.
        """
        if self.text_ids is not None:
            return self.text_ids.ids(values)
        numbers = values.cast(INT64)
        ids = to_numpy(pc.fill_null(numbers, NULL) if numbers.null_count else numbers)
        if np.count_nonzero(ids == NULL) > numbers.null_count:
            raise InputError(f"{where} must not hold {NULL}, the id of null")
        return ids


def categorical_columns(
    folders: Iterable[ParquetFolder],
    named: Collection[str],
    kinds: Sequence[pa.DataType],
    known: Mapping[str, Categorical] | None = None,
) -> dict[str, Categorical]:
    """The further columns of folders, by name in the order of the files.

    Args:
        folders, named: see ``further_columns``. kinds: what a column may be.
        known: columns of a model, the only ones that are read; None: all must be usable.

    Raises:
        InputError: see ``further_columns``.
    """
    types = None if known is None else {name: column.types for name, column in known.items()}
    columns = {}
    for name, kind in further_columns(folders, named, kinds, types).items():
        if kind not in (STRING, pa.list_(STRING)):
            columns[name] = Categorical(kind)
        else:
            columns[name] = Categorical(kind, TextIds()) if known is None else known[name]
    return columns


def text_ids_of(columns: Mapping[str, Categorical]) -> dict[str, TextIds]:
    """Of those that are text, by name."""
    found = {name: column.text_ids for name, column in columns.items()}
    return {name: text_ids for name, text_ids in found.items() if text_ids is not None}
