"""Requests that came before, so that one that is sent again is learned from once."""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from torchrec_mm.data.contract.requests import Requests

MOST = 1 << 17  # the last requests that are remembered: 1 MB of a checkpoint


class Remembered:
    """The last ``MOST`` requests: user, time and candidates in their order make one.

    What else a request says, labels too, does not make it another: the first one counts. Of
    requests it holds 64 bits each: about one in 10^14 is taken for another by mistake.
    """

    def __init__(self, keys: Iterable[int] = ()) -> None:
        """``keys``: what ``keys`` gave, the oldest first."""
        self._keys = dict.fromkeys(keys)

    def are_new(self, requests: Requests) -> np.ndarray:
        """(R,) bool, False for what came before; all are remembered from now on."""
        return np.array([self._add(key) for key in keys_of(requests)], dtype=bool)

    def keys(self) -> np.ndarray:
        """(n,) int64, the oldest first."""
        return np.fromiter(self._keys, np.int64, len(self._keys))

    def _add(self, key: int) -> bool:
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > MOST:
            del self._keys[next(iter(self._keys))]
        return True


def keys_of(requests: Requests) -> list[int]:
    """An int64 for each request with a time."""
    assert requests.timestamps is not None  # a spool gives none without
    heads = np.stack([requests.user_ids, requests.timestamps], axis=1)
    ends = zip(requests.candidates.offsets[:-1], requests.candidates.offsets[1:], strict=True)
    shown = (requests.candidates.values[start:end] for start, end in ends)
    return [
        int.from_bytes(
            blake2b(head.tobytes() + items.tobytes(), digest_size=8).digest(), "little", signed=True
        )
        for head, items in zip(heads, shown, strict=True)
    ]
