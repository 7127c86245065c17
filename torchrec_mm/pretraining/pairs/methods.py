"""The pairs that a method trains on, of packed content."""

from dataclasses import replace
from typing import Literal

import numpy as np

from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.pretraining.pairs.pairs import (
    Pairs,
    PairSet,
    clip_pairs,
    co_click_pairs,
    scl_pairs,
)
from torchrec_mm.pretraining.pairs.relevant import relevant_items

Method = Literal["scl", "clip-e", "co-click"]
HoldoutBy = Literal["time", "item"]


def unseen_items(packed: PackedContent, holdout: float, by: HoldoutBy) -> np.ndarray:
    """(N,) bool, True where training must not see the item; with "time" it may see all."""
    if by == "item":
        return packed.held_out_items(holdout)
    return np.zeros(packed.num_items, dtype=bool)


def training_pairs(
    packed: PackedContent,
    method: Method,
    modalities: tuple[str, ...],
    searches: np.ndarray,
    unseen: np.ndarray,
) -> Pairs:
    """The pairs of a method.

    Args:
        packed: items and searches.
        method: "scl": a search and what was bought; "clip-e": title and picture of one item;
            "co-click": two items of one search.
        modalities: of the run.
        searches: (T,) int64 in [0, S), those to train on.
        unseen: (N,) bool as ``unseen_items`` gives it.
    """
    present = {name: packed.by_modality[name].present for name in modalities}
    if method == "clip-e":
        pairs: Pairs = clip_pairs(packed.num_items, present)
    else:
        make = scl_pairs if method == "scl" else co_click_pairs
        pairs = make(packed.purchased, packed.hard, packed.num_items, searches, present)
    seen = pairs.without_items(unseen)
    if isinstance(seen, PairSet) and method == "scl":
        relevant = relevant_items(packed, seen.queries, seen.keys)
        return replace(seen, relevant=relevant)
    return seen
