"""Places of 64-bit ids in a list, by open addressing with linear probing.

A table is 2^b slots, b at most 32, of two int32: the place of an id in the list, or ``EMPTY``, and
the id's hash. The list has room for fewer ids than there are slots, so that every search ends.

Shape letters: S slots, N ids held, n ids asked for.
"""

import ctypes

import numpy as np

from torchrec_mm.kernels.build import compiled

EMPTY = -1
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth's multiplicative hashing


def empty_table(bits: int) -> np.ndarray:
    """(2^bits, 2) int32 slots that name no id."""
    return np.full((1 << bits, 2), EMPTY, dtype=np.int32)


def find_places(slots: np.ndarray, ids: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Look ids up.

    Args:
        slots: (S, 2) int32. ids: (N,) int64 or longer, as ``add_ids`` left both.
        asked: (n,) int64, any values, duplicates allowed.

    Returns:
        (n,) int32 places in ``ids``; ``EMPTY`` of an id that is not there.
    """
    kernel = compiled("hash_table")
    if kernel is None:
        return find_places_reference(slots, ids, asked)
    asked, places = np.ascontiguousarray(asked), np.empty(len(asked), np.int32)
    kernel.find_places(
        *(_pointer(slots), ctypes.c_int32(_bits(slots)), _pointer(ids)),
        *(_pointer(asked), ctypes.c_int64(len(asked)), _pointer(places)),
    )
    return places


def find_places_reference(slots: np.ndarray, ids: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """:func:`find_places` without a kernel: all ids a probe at a time."""
    named, at = slots[:, 0], _home(asked, slots)
    places = named[at]
    others = np.flatnonzero((places != EMPTY) & (ids[places] != asked))
    at = at[others]
    while len(others):
        at = (at + 1) & (len(slots) - 1)
        found = named[at]
        places[others] = found
        another = (found != EMPTY) & (ids[found] != asked[others])
        others, at = others[another], at[another]
    return places


def add_ids(
    slots: np.ndarray, ids: np.ndarray, held: int, asked: np.ndarray, places: np.ndarray
) -> tuple[int, int]:
    """Look ids up, and append those that are not there in order of first occurrence.

    Stops before an id that ``ids`` has no room for.

    Args:
        slots: (S, 2) int32, written to. ids: (room,) int64, room < S, written to from ``held`` on.
        held: N, how many of ``ids`` are there.
        asked: (n,) int64, any values, duplicates allowed.
        places: (n,) int32, contiguous, written to: places in ``ids``.

    Returns:
        How many of ``asked`` have their place now, n unless ``ids`` is full; and the new N.
    """
    kernel = compiled("hash_table")
    if kernel is None:
        return add_ids_reference(slots, ids, held, asked, places)
    asked, now = np.ascontiguousarray(asked), ctypes.c_int64(held)
    kernel.add_ids.restype = ctypes.c_int64
    done = kernel.add_ids(
        *(_pointer(slots), ctypes.c_int32(_bits(slots)), _pointer(ids), ctypes.c_int64(len(ids))),
        *(ctypes.byref(now), _pointer(asked), ctypes.c_int64(len(asked)), _pointer(places)),
    )
    return done, now.value


def add_ids_reference(
    slots: np.ndarray, ids: np.ndarray, held: int, asked: np.ndarray, places: np.ndarray
) -> tuple[int, int]:
    """:func:`add_ids` without a kernel: the new ids are sorted, then ranked."""
    known = find_places_reference(slots, ids, asked)
    unknown = np.flatnonzero(known == EMPTY)
    first = unknown[np.sort(np.unique(asked[unknown], return_index=True)[1])]
    done = len(asked)
    if held + len(first) > len(ids):
        room = len(ids) - held
        done, first = int(first[room]), first[:room]
    now = held + len(first)
    ids[held:now] = asked[first]
    _insert(slots, ids, np.arange(held, now, dtype=np.int32))
    places[:done] = find_places_reference(slots, ids, asked[:done])
    return done, now


def _insert(slots: np.ndarray, ids: np.ndarray, places: np.ndarray) -> None:
    at = _home(ids[places], slots)
    while len(places):
        free = slots[at, 0] == EMPTY
        slots[at[free], 0] = places[free]
        # Of several that wanted one slot the last has it; the others go on.
        won = slots[at, 0] == places
        slots[at[won], 1] = _hash(ids[places[won]]).view(np.int32)
        places, at = places[~won], (at[~won] + 1) & (len(slots) - 1)


def _hash(ids: np.ndarray) -> np.ndarray:
    """(n,) uint32."""
    return ((ids.view(np.uint64) * GOLDEN) >> np.uint64(32)).astype(np.uint32)


def _home(ids: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(n,) int64: the slot where the search for each id begins."""
    return (_hash(ids) >> np.uint32(32 - _bits(slots))).astype(np.int64)


def _bits(slots: np.ndarray) -> int:
    return len(slots).bit_length() - 1


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
