"""Further columns as features: categories, which become int64 ids, bags of them, and numbers.

Null is a value of its own among categories, and known as null among numbers. An integer is its own
id, False is 0 and True is 1. The id of a text is its hash (``columns.text_ids``); texts that share
one are found and refused.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.jagged import Jagged, values_and_offsets
from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.columns.parquet import BOOL, FLOAT64, INT64, STRING
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.contract.feature_settings import BAG, IGNORE, FeatureSettings
from torchrec_mm.data.contract.roles import further_columns
from torchrec_mm.data.contract.texts import NULL, TextIds
from torchrec_mm.errors import InputError

CATEGORIES = (INT64, BOOL, STRING)
CATEGORY_LISTS = (pa.list_(INT64), pa.list_(STRING))
NUMBERS = (FLOAT64, INT64, BOOL)
NUMBER_LISTS = tuple(map(pa.list_, NUMBERS))


@dataclass(frozen=True)
class Categorical:
    """A further column of categories, or of lists of them.

    kind: its promised type, of ``CATEGORIES`` or ``CATEGORY_LISTS``. text_ids: of text, else None.
    min_count: training occurrences from which a value, but for null, has a row of its own.
    table: that it shares with the other columns that name it, else None.
    """

    kind: pa.DataType
    text_ids: TextIds | None = None
    min_count: int = 1
    table: str | None = None

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

    def read_as(self, kind: pa.DataType) -> "Categorical":
        """The same in files where it is of that type, one of ``types``."""
        return replace(self, kind=kind)

    def ids(self, values: pa.Array, where: str) -> np.ndarray:
        """(n,) int64 ids of the column's values, or of those of its lists.

        Raises:
            InputError: the integer that stands for null, naming ``where``.
        """
        if self.text_ids is not None:
            return self.text_ids.ids(values, where)
        numbers = values.cast(INT64)
        ids = to_numpy(pc.fill_null(numbers, NULL) if numbers.null_count else numbers)
        if np.count_nonzero(ids == NULL) > numbers.null_count:
            raise InputError(f"{where} must not hold {NULL}, the id of null")
        return ids


@dataclass(frozen=True)
class Numeric:
    """A further column of numbers, or of lists of them.

    kind: its promised type. log1p: whether log(1 + x) takes the place of x.
    """

    kind: pa.DataType
    log1p: bool = False

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """What may be read for it."""
        is_list = pa.types.is_list(self.kind)
        return NUMBER_LISTS if is_list else NUMBERS

    def read_as(self, kind: pa.DataType) -> "Numeric":
        """The same in files where it is of that type, one of ``types``."""
        return replace(self, kind=kind)

    def values(self, values: pa.Array, where: str, offsets: np.ndarray | None = None) -> np.ndarray:
        """(n,) float64 of the column's values, or of those of its lists; NaN for null.

        ``offsets``: where the lists begin and end in the values, (R + 1,).

        Raises:
            InputError: NaN, an infinity, or with log1p a number below 0; ``where`` and row named.
        """
        numbers = values.cast(FLOAT64, safe=False)
        found = np.array(to_numpy(pc.fill_null(numbers, 0.0)))
        wrong = ~np.isfinite(found) | ((found < 0) if self.log1p else False)
        if wrong.any():
            place = int(np.argmax(wrong))
            row = place if offsets is None else np.searchsorted(offsets, place, "right") - 1
            rule = "be at least 0 with log1p" if np.isfinite(found[place]) else "be finite or null"
            raise InputError(f"{where} must {rule}, row {row} has {found[place]}")
        if self.log1p:
            np.log1p(found, out=found)
        if numbers.null_count:
            found[pc.is_null(numbers).to_numpy(zero_copy_only=False)] = np.nan
        return found


@dataclass(frozen=True)
class Bag:
    """A further column of lists of categories that belong together: a multi-hot feature.

    each: what the values are. pooling: of their embeddings, one of POOLINGS.
    """

    each: Categorical
    pooling: str = "mean"

    @property
    def kind(self) -> pa.DataType:
        """Its promised type."""
        return pa.list_(self.each.kind)

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """What may be read for it."""
        return (self.kind,)

    def read_as(self, kind: pa.DataType) -> "Bag":
        """The same: there is one type."""
        return self

    def ids(self, column: pa.ChunkedArray, where: str) -> Jagged:
        """int64 ids of the values of each row; a null list is an empty one.

        Raises:
            InputError: a null inside a list, ``where`` and row named.
        """
        return self.ids_of(*values_and_offsets(column), where)

    def ids_of(self, values: pa.Array, offsets: np.ndarray, where: str) -> Jagged:
        """The same of values and of (R + 1,) offsets, where the rows begin and end in them."""
        if values.null_count:
            place = int(np.argmax(pc.is_null(values).to_numpy(zero_copy_only=False)))
            row = np.searchsorted(offsets, place, "right") - 1
            raise InputError(f"{where} must not hold a null in a list, row {row} does")
        return Jagged(self.each.ids(values, where), offsets)


Feature = Categorical | Numeric | Bag
FeatureT = TypeVar("FeatureT", Categorical, Numeric, Bag)


@dataclass(frozen=True)
class Kinds:
    """Types that columns may have as categories, numbers and bags.

    Unasked, a number is the first of its types, and a list that may be a category is no bag.
    """

    categories: tuple[pa.DataType, ...]
    numbers: tuple[pa.DataType, ...]
    bags: tuple[pa.DataType, ...] = ()

    def types(self, kind: str | None) -> tuple[pa.DataType, ...]:
        """Those of the kind that is said, if any."""
        if kind is None:
            return tuple(dict.fromkeys((*self.categories, self.numbers[0], *self.bags)))
        return {"numeric": self.numbers, BAG: self.bags}.get(kind, self.categories)

    def is_bag(self, kind: pa.DataType, said: str | None) -> bool:
        """Whether a column of that type is one."""
        return said == BAG or (kind in self.bags and kind not in self.categories)


def feature_columns(
    folders: Sequence[ParquetFolder],
    named: Collection[str],
    kinds_of: Callable[[str], Kinds],
    settings: Mapping[str, FeatureSettings],
    known: Mapping[str, Feature] | None = None,
) -> dict[str, Feature]:
    """The further columns of folders, by name in the order of the files.

    Args:
        folders, named: see ``further_columns``. kinds_of: what a column of a name may be.
        settings: what is said of columns, by name; of a model's, nothing is.
        known: columns of a model, the only ones that are read; None: all must be usable.

    Raises:
        InputError: see ``further_columns``; a setting that does not go with the column's type.
    """
    if known is not None:
        types = {name: column.types for name, column in known.items()}
        kinds = further_columns(folders, named, (), types)
        return {name: known[name].read_as(kind) for name, kind in kinds.items()}
    said = defaultdict(FeatureSettings, settings)
    for name, each in settings.items():
        if each.kind == BAG and not kinds_of(name).bags:
            raise InputError(f"column {name} must not be a bag, but one value an impression")
    ignored = {name for name, each in settings.items() if each.kind == IGNORE}
    names = {name for folder in folders for name in folder.names} - ignored
    types = {name: kinds_of(name).types(said[name].kind) for name in names}
    found = further_columns(folders, {*named, *ignored}, (), types)
    return {
        name: _feature(name, kind, said[name], kinds_of(name).is_bag(kind, said[name].kind))
        for name, kind in found.items()
    }


def _feature(name: str, kind: pa.DataType, said: FeatureSettings, is_bag: bool) -> Feature:
    value = kind.value_type if pa.types.is_list(kind) else kind
    if said.pooling and not is_bag:
        raise InputError(f"pooling must be of a bag, got {name}")
    if value == FLOAT64 or said.kind == "numeric":
        for key, given in (("min_count", said.min_count > 1), ("table", said.table is not None)):
            if given:
                raise InputError(f"{key} must be of a categorical column, got {name}")
        return Numeric(kind, said.transform == "log1p")
    if said.transform:
        raise InputError(f"transform must be of a numeric column, got {name}: kind: numeric")
    text_ids = TextIds() if value == STRING else None
    column = Categorical(value if is_bag else kind, text_ids, said.min_count, said.table)
    return Bag(column, said.pooling or "mean") if is_bag else column


def of_kind(columns: Mapping[str, Feature], kind: type[FeatureT]) -> dict[str, FeatureT]:
    """Those that are categorical, those that are numeric, or the bags."""
    return {name: column for name, column in columns.items() if isinstance(column, kind)}


def categories_of(columns: Mapping[str, Feature]) -> dict[str, Categorical]:
    """What the values are of those that are categorical and of bags, by name."""
    return {
        name: column.each if isinstance(column, Bag) else column
        for name, column in columns.items()
        if not isinstance(column, Numeric)
    }


def text_ids_of(columns: Mapping[str, Feature]) -> dict[str, TextIds]:
    """Of those that are text, by name."""
    found = {name: column.text_ids for name, column in categories_of(columns).items()}
    return {name: text_ids for name, text_ids in found.items() if text_ids is not None}
