"""Histories as they are now: those of a folder, and after them what came since.

Shape letters: R requests.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.jagged import Jagged, offsets_of, ragged_positions, values_and_offsets
from torchrec_mm.columns.numbers import to_arrow
from torchrec_mm.columns.parquet import STRING
from torchrec_mm.data.contract.features import Categorical
from torchrec_mm.data.contract.texts import NULL
from torchrec_mm.serving.additions.body import Kind
from torchrec_mm.serving.additions.store import AddedBehaviours
from torchrec_mm.serving.histories import LONG_AGO

Lists = dict[str, pa.Array]


class AddedLists:
    """Columns of requests, continued by what a store holds."""

    def __init__(self, store: AddedBehaviours, kinds: Mapping[str, Kind]) -> None:
        """``kinds``: the store's."""
        self._store, self._kinds = store, kinds

    def join(self, lists: Lists, users: np.ndarray, after: np.ndarray, before: np.ndarray) -> Lists:
        """R lists of each column, and behind each what its user did between two moments.

        ``lists``: of all columns of behaviours, whole up to ``after``; they are empty for users who
        were deleted since. ``users``, ``after``, ``before``: (R,) int64.
        """
        deleted = self._store.deleted(users)
        found = _emptied(lists, (deleted > LONG_AGO) & (deleted >= after))
        lists = dict(found)
        for items, (added, attributes) in self._store.of(users, after, before).items():
            found[items] = _joined(lists[items], to_arrow(added.values), added)
            for place, (name, kind) in enumerate(self._kinds[items].attributes.items()):
                values = self._values(kind, np.ascontiguousarray(attributes[:, place]))
                found[name] = _joined(lists[name], values, added)
        return found

    def _values(self, kind: Categorical, ids: np.ndarray) -> pa.Array:
        """What the ids of an attribute stand for."""
        if kind.kind.value_type == STRING:
            texts = self._store.texts(ids[ids != NULL])
            return pa.array([texts.get(each) for each in ids.tolist()], STRING)
        numbers = to_arrow(ids)
        return pc.if_else(pc.equal(numbers, NULL), None, numbers)


def _emptied(lists: Lists, where: np.ndarray) -> Lists:
    """Lists of R rows, empty ``where``."""
    if not where.any():
        return dict(lists)
    row = to_arrow(np.where(where, len(where), np.arange(len(where))))
    return {
        name: pa.concat_arrays([each, pa.array([[]], each.type)]).take(row)
        for name, each in lists.items()
    }


def _joined(one: pa.Array, values: pa.Array, other: Jagged) -> pa.Array:
    """R lists, each with one of ``other``'s behind it, whose values are ``values``."""
    own, offsets = values_and_offsets(pa.chunked_array([one]))
    if not len(own):  # of users whom no folder knows, and quicker
        cut = to_arrow(other.offsets.astype(np.int32))
        return pa.ListArray.from_arrays(cut, values.cast(own.type))
    lengths = np.stack([np.diff(offsets), other.lengths], axis=1)
    begins = np.stack([offsets[:-1], len(own) + other.offsets[:-1]], axis=1)
    places = ragged_positions(begins.ravel(), lengths.ravel())
    both = pa.concat_arrays([own, values.cast(own.type)]).take(to_arrow(places))
    return pa.ListArray.from_arrays(
        to_arrow(offsets_of(lengths.sum(axis=1)).astype(np.int32)), both
    )
