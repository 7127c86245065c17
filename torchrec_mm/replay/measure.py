"""What replays came to: how a ranker does on items of the last day, and how sure that is.

Shape letters: I impressions, B resamples.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from torchrec_mm.metrics.bootstrap import Interval, resampled_figures
from torchrec_mm.metrics.slices import DAY_S
from torchrec_mm.replay.replay import Replayed

SLICES = ("younger than a day", "all")
FIGURES = ("auc", "gauc")


def measure(replays: Mapping[str, Replayed], resamples: int) -> list[dict[str, Any]]:
    """Of each replay, in order, and what it differs from the last by.

    Args:
        replays: by name, all of the same impressions. resamples: of their users, B.

    Returns:
        By replay "name", and by slice the figures as ``Interval``, "impressions", "coverage" (the
        share of them whose item had a vector) and "against", the paired differences from the last
        replay; None where a figure is undefined.
    """
    drawn = {name: _resampled(each, resamples) for name, each in replays.items()}
    *_, base = drawn.values()
    return [
        {"name": name, "slices": {s: _figures(replays[name], found, base, s) for s in SLICES}}
        for name, found in drawn.items()
    ]


def young(replayed: Replayed) -> np.ndarray:
    """(I,) bool, where the item was younger than a day."""
    return replayed.age_s < DAY_S


def _resampled(replayed: Replayed, resamples: int) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for name in SLICES:
        of_slice = _mask(replayed, name)
        columns = (replayed.user_ids, replayed.labels, replayed.logits)
        found[name] = resampled_figures(*(c[of_slice] for c in columns), resamples=resamples)
    return found


def _mask(replayed: Replayed, name: str) -> np.ndarray:
    return young(replayed) if name == SLICES[0] else np.ones(len(replayed.labels), bool)


def _figures(
    replayed: Replayed,
    ours: Mapping[str, Mapping[str, np.ndarray]],
    base: Mapping[str, Mapping[str, np.ndarray]],
    name: str,
) -> dict[str, Any]:
    of_slice = _mask(replayed, name)
    known = [each for each in FIGURES if not np.isnan(ours[name][each][0])]
    figures = {each: asdict(Interval.of(ours[name][each])) for each in known}
    against = {
        each: asdict(Interval.of_difference(ours[name][each], base[name][each])) for each in known
    }
    return {
        **{each: figures.get(each) for each in FIGURES},
        "against": {each: against.get(each) for each in FIGURES},
        "impressions": int(of_slice.sum()),
        "coverage": float(replayed.has_vector[of_slice].mean()) if of_slice.any() else None,
    }
