"""The bridge between the phases: one frozen vector an item, in a folder, looked up by id.

Phase one and imports write it; ranking, evaluation and serving read it. What lies on disk and what
a fingerprint names must not change. What ``__all__`` names is public; README.md brings vectors of
one's own.

Read first: store.py
"""

from torchrec_mm.item_vectors.neighbours import NeighbourHits, Neighbours
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

__all__ = ["ItemVectors", "NeighbourHits", "Neighbours", "write_item_vectors"]
