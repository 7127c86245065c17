"""The forms in which logs hold ids and times, and their values as the data contract has them.

One statement a form, DuckDB's SQL over Arrow tables, for every source and engine. A value that its
form does not allow is null, and its row a bad one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.parquet import INT64, STRING, same_kind
from torchrec_mm.columns.text_ids import hash_texts
from torchrec_mm.errors import InputError

# Forms by what they are called in complaints.
WHOLE, DIGITS = "an int64", "a whole number of int64"
TEXT, WORDS = "text", "text that is no whole number"
DATE, ZONED, ISO = "a time", "a time with a zone", "a date of ISO 8601"
DIGITS_OR_ISO = "a whole number of int64 or a date of ISO 8601"
STRING_FORM = "a string"  # which may be empty, where TEXT may not
CODE = "a small number"  # that stands for what a text says
TEXTS = (TEXT, WORDS)

WHOLE_NUMBER = r"^\s*[+-]?[0-9]+\s*$"  # of text: a cast alone would take 1.5 for 2
# A day, or a day and a time; any fraction of a second, and Z, an offset or neither.
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?"
_ISO_8601 = rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([T ]{_CLOCK}{_ZONE}?)?$"
_WITH_ZONE = rf":.*{_ZONE}$"

# SQL by form; @ is the column. Ids and numbers are BIGINT, text VARCHAR, times BIGINT seconds.
_SQL = {
    WHOLE: "TRY_CAST(@ AS BIGINT)",
    DIGITS: f"CASE WHEN regexp_matches(@, '{WHOLE_NUMBER}') THEN TRY_CAST(@ AS BIGINT) END",
    TEXT: "nullif(CAST(@ AS VARCHAR), '')",
    WORDS: f"CASE WHEN NOT regexp_matches(@, '{WHOLE_NUMBER}') THEN nullif(@, '') END",
    STRING_FORM: "CAST(@ AS VARCHAR)",
    CODE: "CAST(@ AS TINYINT)",
    DATE: "whole_seconds(TRY_CAST(@ AS TIMESTAMPTZ))",
    ISO: f"CASE WHEN regexp_matches(@, '{_ISO_8601}') "
    "THEN whole_seconds(TRY_CAST(@ AS TIMESTAMPTZ)) END",
}
_SQL[ZONED] = _SQL[DATE]
_SQL[DIGITS_OR_ISO] = f"coalesce({_SQL[DIGITS]}, {_SQL[ISO]})"
_IS_DATE = {
    **dict.fromkeys((WHOLE, DIGITS), "false"),
    **dict.fromkeys((DATE, ZONED, ISO), "true"),
    DIGITS_OR_ISO: f"NOT regexp_matches(@, '{WHOLE_NUMBER}')",
}
_IS_ZONED = {
    **dict.fromkeys((WHOLE, DIGITS, ZONED), "true"),
    DATE: "false",
    ISO: f"regexp_matches(@, '{_WITH_ZONE}')",
    DIGITS_OR_ISO: f"regexp_matches(@, '{WHOLE_NUMBER}') OR regexp_matches(@, '{_WITH_ZONE}')",
}
# Seconds are rounded down, before 1970 as well.
_WHOLE_SECONDS = (
    "CREATE MACRO whole_seconds(time) AS CASE WHEN epoch_us(time) >= 0 "
    "THEN epoch_us(time) // 1000000 ELSE -1 - (-(epoch_us(time) + 1)) // 1000000 END"
)


def reason(column: str, form: str) -> str:
    """Why a value that does not have the form of its column is bad."""
    return f"{column} is not {form}"


def id_form(kind: pa.DataType) -> str | None:
    """Form of a typed column of ids; None if it cannot be one."""
    if same_kind(kind, INT64):
        return WHOLE
    return TEXT if same_kind(kind, STRING) or kind == pa.uuid() else None


def time_form(kind: pa.DataType) -> str | None:
    """Form of a typed column of times; None if it cannot be one."""
    if same_kind(kind, INT64):
        return WHOLE
    if pa.types.is_timestamp(kind):
        return ZONED if kind.tz else DATE
    if pa.types.is_date(kind):
        return DATE
    return ISO if same_kind(kind, STRING) else None


@dataclass(frozen=True)
class Bad:
    """Rows that are bad for one reason. first: number of the first of them. value: as it has it."""

    reason: str
    rows: int
    first: int
    value: object


@dataclass(frozen=True)
class Typed:
    """Rows as the contract has them, and what is wrong with those that cannot be.

    good: the columns of ``Typist.forms``, ids and numbers int64, times in their own unit, then
    ``NAME_text`` of ids that are text, ``is_date`` and ``is_zoned`` (bool) of the times, and the
    columns without a form. bad: by reason.
    """

    good: pa.Table
    bad: tuple[Bad, ...]


class Typist:
    """Takes raw tables to typed ones, in one thread; a context.

    forms: of the columns, in the order in which a bad value is looked for.
    """

    def __init__(self, forms: Mapping[str, str]) -> None:
        self.forms = forms
        self._database = _database().cursor()
        values = [_sql(_SQL[form], name) for name, form in forms.items()]
        if "timestamp" in forms:
            for sql, name in ((_IS_DATE, "is_date"), (_IS_ZONED, "is_zoned")):
                values.append(_sql(sql[forms["timestamp"]], "timestamp", name))
        self._query = f"SELECT {', '.join(values)} FROM raw"

    def __enter__(self) -> "Typist":
        return self

    def __exit__(self, *raised: object) -> None:
        self._database.close()

    def __call__(self, raw: pa.Table, where: Path | str, rows: pa.Array | None = None) -> Typed:
        """Read N rows.

        Args:
            raw: columns as the file has them. where: names the file in complaints. rows: (N,)
                int64, their numbers in the file; None: from 1.

        Raises:
            InputError: text that is not UTF-8.
        """
        if rows is None:
            rows = pa.array(np.arange(1, raw.num_rows + 1))
        try:
            relation = self._database.from_arrow(raw).query("raw", self._query)
            assert relation is not None  # a SELECT has rows
            typed = relation.to_arrow_table()
        except duckdb.Error as error:
            raise InputError(f"{where} could not be read: {error}") from error
        for name in raw.column_names:
            if name not in self.forms:
                typed = typed.append_column(name, raw[name])
        wrong = self._wrong_columns(typed)
        if wrong.null_count == len(wrong):
            return Typed(self._hashed(typed), ())
        good = self._hashed(typed.filter(pc.is_null(wrong)))
        return Typed(good, tuple(self._told(raw, rows, wrong)))

    def _wrong_columns(self, typed: pa.Table) -> pa.Array:
        """(N,) the first column whose value is null, null where there is none."""
        wrong = pa.nulls(typed.num_rows, STRING)
        for name in reversed([*self.forms]):
            if typed[name].null_count:
                wrong = pc.if_else(typed[name].combine_chunks().is_null(), name, wrong)
        return wrong

    def _hashed(self, good: pa.Table) -> pa.Table:
        for name, form in self.forms.items():
            if form in TEXTS:
                texts, at = good[name], good.column_names.index(name)
                good = good.set_column(at, name, hash_texts(texts))
                good = good.append_column(f"{name}_text", texts)
        return good

    def _told(self, raw: pa.Table, rows: pa.Array, wrong: pa.Array) -> Iterator[Bad]:
        for name, form in self.forms.items():
            is_bad = pc.fill_null(pc.equal(wrong, name), False)
            is_missing = _is_missing(raw[name].combine_chunks())
            for words, chosen in (
                (f"{name} is missing", pc.and_(is_bad, is_missing)),
                (reason(name, form), pc.and_not(is_bad, is_missing)),
            ):
                if count := pc.sum(chosen).as_py():
                    at = pc.index(chosen, True).as_py()
                    yield Bad(words, count, rows[at].as_py(), raw[name][at].as_py())


def _is_missing(values: pa.Array) -> pa.Array:
    """(N,) bool: null, or text without a character."""
    if same_kind(values.type, STRING):
        return pc.fill_null(pc.equal(values.cast(STRING), ""), True)
    return values.is_null()


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """In memory, without threads of its own; its making takes longer than many a piece."""
    database = duckdb.connect(config={"threads": 1})
    database.execute("SET GLOBAL TimeZone = 'UTC'")
    database.execute(_WHOLE_SECONDS)
    return database


def _sql(template: str, column: str, name: str = "") -> str:
    return f"{template.replace('@', _quoted(column))} AS {_quoted(name or column)}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
