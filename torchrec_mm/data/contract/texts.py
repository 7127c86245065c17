"""Texts as categories, each with an id, and null with one of its own."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.columns.numbers import to_arrow, to_numpy
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.errors import InputError

NULL = -0x6E75_6C6C_6E75_6C6C  # the id of null; no other value may have it


class TextIds:
    """Ids of the texts of one column; each text that was asked for is kept, once."""

    def __init__(self, known: pa.Array | None = None) -> None:
        """``known``: all texts that are kept, null among them or not; None: whatever comes is.

        A model that was trained keeps no more: a server would keep what anybody sends.
        """
        self._ids: dict[str, int] = {}
        self._taken: frozenset[int] | None = None
        if known is not None:
            self.ids(known)
            self._taken = frozenset([*self._ids.values(), NULL])

    @classmethod
    def joined(cls, parts: "Sequence[TextIds]") -> "TextIds":
        """All texts that one of them knows."""
        joined = cls()
        for part in parts:
            joined._ids.update(part._ids)
        return joined

    def ids(self, texts: pa.Array, where: str = "column") -> np.ndarray:
        """(n,) int64 ids of strings, ``NULL`` where there is none; from several threads if need be.

        Texts are compared byte by byte: neither case nor space nor accent is made equal.

        Raises:
            InputError: with known texts, another that has the id of one; ``where`` is named.
        """
        encoded = texts.dictionary_encode()
        of_texts = [self._id(text, where) for text in encoded.dictionary.to_pylist()]
        places = pc.fill_null(encoded.indices, len(of_texts))
        return np.array([*of_texts, NULL], np.int64)[to_numpy(places)]

    def _id(self, text: str, where: str) -> int:
        found = self._ids.get(text)
        if found is None:
            found = hash_text(text)
            if self._taken is None:
                self._ids[text] = found
            elif found in self._taken:
                one = next((repr(known) for known, of in self._ids.items() if of == found), "null")
                raise InputError(f"{where} must not hold both {one} and {text!r}, they have one id")
        return found

    @property
    def kept(self) -> int:
        """How many texts are kept."""
        return len(self._ids)

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
