"""The bridge between the phases: one frozen vector an item, in a folder, looked up by id.

Phase one and imports write it; ranking, evaluation and serving read it. What lies on disk and what
a fingerprint names must not change. What ``__all__`` names is public; README.md brings vectors of
one's own.

Read first: store.py
"""

from importlib import import_module
from typing import TYPE_CHECKING

from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

if TYPE_CHECKING:
    from torchrec_mm.item_vectors.neighbours import NeighbourHits, Neighbours

__all__ = ["ItemVectors", "NeighbourHits", "Neighbours", "write_item_vectors"]


def __getattr__(name: str) -> object:
    """Neighbours are found with torch, which loads for seconds: not before somebody wants them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.neighbours"), name)
