"""Further columns of rows of impressions: of which kind, and whether of requests or impressions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.jagged import Jagged, list_array, offsets_of, values_and_offsets
from torchrec_mm.columns.numbers import in_one, to_arrow, to_numpy
from torchrec_mm.columns.parquet import BOOL, FLOAT64, INT64, STRING
from torchrec_mm.data.contract.request_columns import OF_CANDIDATES
from torchrec_mm.data.prepare.repeated_rows import list_hashes
from torchrec_mm.data.prepare.sittings import changes
from torchrec_mm.errors import InputError

VALUES = (INT64, BOOL, STRING, FLOAT64)
KINDS = (*VALUES, *map(pa.list_, (INT64, STRING, FLOAT64)))
LEAST_SHARE = 0.01  # of the requests of several impressions, in which a feature of theirs differs
OF_REQUESTS = ("candidate_item_ids", "labels", "weights")  # what is made out of other columns

# Text that is read as another kind. Of 007 and 7 a number would make one value.
_WHOLE = r"^\s*[+-]?(0|[1-9][0-9]*)\s*$"
_REAL = r"^\s*[+-]?((0|[1-9][0-9]*)([.][0-9]*)?|[.][0-9]+)([eE][+-]?[0-9]+)?\s*$"
_PATTERNS = ((INT64, _WHOLE), (FLOAT64, _REAL), (BOOL, "^(?i:true|false)$"))


def of_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of CSV as int64, double, bool or string: the first that all its values can be.

    Empty ones are null.
    """
    values = pc.if_else(pc.equal(column, ""), pa.scalar(None, STRING), column)
    for kind, pattern in _PATTERNS:
        if pc.all(pc.match_substring_regex(values, pattern)).as_py():
            try:
                return pc.utf8_trim_whitespace(values).cast(kind)
            except pa.ArrowInvalid:  # more digits than int64 has: ids of that kind are text
                return values
    return values


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """(N,) int64, equal where values are, null among them; of lists, nearly never otherwise."""
    if pa.types.is_list(column.type):
        values, offsets = values_and_offsets(column)
        return list_hashes(Jagged(codes(pa.chunked_array([values])), offsets)).view(np.int64)
    encoded = in_one(column).dictionary_encode(null_encoding="encode")
    return to_numpy(encoded.indices).astype(np.int64)


def names_of_impressions(
    folder: Path, begins: np.ndarray, table: pa.Table, equal: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """Which columns are features of the impression, and what they are called in requests.

    Those called ``candidate_...``, and those that differ inside requests: inside ``LEAST_SHARE``
    of the requests that have several impressions, or more. The others have one value a request.

    Args:
        folder: named in complaints. begins: (N,) bool, where requests begin.
        table: the further columns, N rows. equal: ``codes`` of each.

    Raises:
        InputError: one differs inside fewer requests, is a list and differs, or has a name that
            requests need.
    """
    request = np.cumsum(begins) - 1
    several = int(np.count_nonzero(np.bincount(request) > 1))
    names = {}
    for name in table.column_names:
        where = f"{folder} column {name}"
        differing = len(np.unique(request[changes(equal[name]) & ~begins]))
        is_named = name.startswith(OF_CANDIDATES)
        if name in OF_REQUESTS:
            raise InputError(f"{where} must have another name, which columns can give it")
        if not differing and not is_named:
            continue
        if pa.types.is_list(table[name].type):
            rule = "must have one value a request, as lists of impressions have no place"
            raise InputError(f"{where} {rule}: got several in {differing}")
        if differing < LEAST_SHARE * several and not is_named:
            raise InputError(
                f"{where} must have one value a request (one user at one time), or several in one "
                f"in {round(1 / LEAST_SHARE)}, got several in {differing} of {several}: leave it "
                f"out, or call it {OF_CANDIDATES}{name} (columns), a feature of the impression"
            )
        called = name if is_named else OF_CANDIDATES + name
        if called != name and called in (*table.column_names, *OF_REQUESTS):
            rule = f"must not differ inside requests, where {called} is another column"
            raise InputError(f"{where} {rule}, got several values in {differing} requests")
        names[name] = called
    return names


def feature_columns(
    table: pa.Table, begins: np.ndarray, names: Mapping[str, str], lengths: np.ndarray, most: int
) -> dict[str, pa.Array]:
    """The further columns as columns of R requests.

    Lists as long as the behaviours in every request, and those of ``..._item_ids``, keep their
    ``most`` last values.

    Args:
        table: N rows. begins: (N,) bool. names: those of impressions, what they are called.
        lengths: (R,) behaviours that each request was given. most: behaviours a request.
    """
    first = np.flatnonzero(begins)
    sizes = np.diff(first, append=len(begins))
    found = {}
    for name in table.column_names:
        column = in_one(table[name])
        if name in names:
            offsets = to_arrow(offsets_of(sizes).astype(np.int32))
            found[names[name]] = pa.ListArray.from_arrays(offsets, column)
            continue
        found[name] = column.take(to_arrow(first))
        if pa.types.is_list(column.type):
            values, offsets = values_and_offsets(pa.chunked_array([found[name]]))
            lists = Jagged(np.arange(len(values)), offsets)
            if name.endswith("_item_ids") or np.array_equal(lists.lengths, lengths):
                kept = lists.newest(most)[0]
                places = list_array(kept.values, kept.lengths)
                values = values.take(places.values)
                found[name] = pa.ListArray.from_arrays(places.offsets, values)
    return found


def weight_lists(folder: Path, weight: pa.ChunkedArray, sizes: np.ndarray) -> pa.Array:
    """``weights`` of R requests with ``sizes`` impressions each.

    Raises:
        InputError: a weight is missing, below 0 or no number.
    """
    weights = to_numpy(pc.fill_null(weight.cast(FLOAT64), np.nan))
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        got = "null" if np.isnan(weights[wrong][0]) else weights[wrong][0]
        raise InputError(f"{folder} column weight must be at least 0 and finite, got {got}")
    return list_array(weights, sizes)
