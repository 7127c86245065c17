"""What the runs of a study came to: figures, how sure they are, and what differs from what.

Shape letters: N impressions, B resamples.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from torchrec_mm.documents import read_json
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.metrics.bootstrap import FIGURES, Interval, resampled_figures
from torchrec_mm.metrics.gauc import gauc
from torchrec_mm.reporting.encoders import group_encoders
from torchrec_mm.reporting.runs import find_runs
from torchrec_mm.runs.checkpoint import checkpoint_shapes
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.run_folder import CHECKPOINTS
from torchrec_mm.study.plan import METRICS, PREDICTIONS, Plan
from torchrec_mm.study.splits import read_users

FOUND_BY = ("recall@1", "recall@10", "mrr", "hard_negative_accuracy")
COMPARED = ("auc", "gauc", "log_loss")
THIRDS = ("user_activity/least", "user_activity/middle", "user_activity/most")


def phase_one(encoders: Path | None) -> dict[str, dict[str, float | None]]:
    """What ``FOUND_BY`` says of each encoder below a folder, the mean over its runs; none: nothing.

    InputError if there is a folder without one.
    """
    groups = group_encoders(find_runs(encoders).pretraining) if encoders else []
    return {each.encoder: {name: each.metric(name).mean for name in FOUND_BY} for each in groups}


def measure(
    plan: Plan, resamples: int, encoders: Mapping[str, Mapping[str, float | None]] = {}
) -> dict[str, Any]:
    """What study.json says.

    A figure is the mean over the seeds, of the whole test split and of each resample of its users;
    ``deviation`` is that of the seeds, which the intervals over users do not hold.

    Args:
        plan: all of whose runs are there. resamples: of the users, B. encoders: of ``phase_one``.
    """
    activity = Activity(plan.data)
    figures = {name: _mean_over_seeds(plan, name, resamples) for name in plan.rows}
    rows = []
    for name, (mean, by_seed) in figures.items():
        row = {
            "row": name,
            "method": plan.rows[name].method,
            "encoder": _encoder(plan, name),
            "option": plan.best(name),
            "figures": {
                each: vars(Interval.of(mean[each]))
                | {"deviation": stdev(by_seed[each]) if len(plan.seeds) > 1 else None}
                for each in FIGURES
            },
            "against": {
                other: {
                    each: vars(Interval.of_difference(mean[each], figures[other][0][each]))
                    for each in COMPARED
                }
                for other in plan.compared_with(name)
            },
            **_costs(plan, name),
            "epochs": _epochs(plan.run_dir(name, seed) for seed in plan.seeds),
            "epochs_of_make": _epochs_of_make(plan, name),
        }
        if plan.recipe.slices:
            row["slices"] = _slices(plan, name, activity)
        rows.append(row)
    recipe = plan.recipe
    return {
        "title": recipe.title,
        "about": recipe.about,
        "seeds": list(plan.seeds),
        "resamples": resamples,
        "tune": list(recipe.tune),
        "validation": recipe.validation,
        "vectors": list(plan.vectors),
        "encoders": encoders,
        "rows": rows,
        "claims": [
            {"above": above, "below": below, "holds": low > 0}
            for (above, below), low in zip(recipe.claims, _lows(recipe.claims, rows), strict=True)
        ],
    }


def _lows(claims: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The lower end of each claim's difference in GAUC."""
    against = {row["row"]: row["against"] for row in rows}
    return [against[above][below]["gauc"]["low"] for above, below in claims]


def _mean_over_seeds(
    plan: Plan, name: str, resamples: int
) -> tuple[dict[str, np.ndarray], dict[str, list[float]]]:
    """(1 + B,) by figure, the mean over the seeds; and each seed's own figure."""
    drawn = []
    for seed in plan.seeds:
        table = pq.read_table(plan.run_dir(name, seed) / PREDICTIONS)
        columns = [table[each].to_numpy() for each in ("user_id", "label", "logit")]
        drawn.append(resampled_figures(*columns, resamples=resamples))
    mean = {each: np.mean([one[each] for one in drawn], axis=0) for each in FIGURES}
    return mean, {each: [float(one[each][0]) for one in drawn] for each in FIGURES}


def _encoder(plan: Plan, name: str) -> str | None:
    """Who made the row's vectors; None without vectors."""
    folder = plan.vectors_of(name)
    return ItemVectors.open(folder).encoder if folder else None


def _costs(plan: Plan, name: str) -> dict[str, Any]:
    """Weights of the model, frozen ones too, and training speed; None for one without steps."""
    run_dir = plan.run_dir(name, plan.seeds[0])
    shapes = checkpoint_shapes(find_checkpoint(run_dir / CHECKPOINTS).folder)
    learned = [s for key, s in shapes.items() if not key.startswith(("optimizer.", "epoch."))]
    speeds = [line["impressions_per_s"] for line in _lines(run_dir) if "epoch" in line]
    return {
        "parameters": sum(map(prod, learned)),
        "impressions_per_s": speeds[-1] if speeds else None,
    }


def _epochs_of_make(plan: Plan, name: str) -> list[dict[str, Any]]:
    """Those of the MAKE that a row joins, a model of item vectors alone."""
    if "make" not in plan.rows[name].method:
        return []
    return _epochs(plan.make_dir(name, seed, tuning=False) for seed in plan.seeds)


def _epochs(run_dirs: Iterable[Path]) -> list[dict[str, Any]]:
    """Train and test AUC by epoch, means over the seeds, of runs that were told to say so."""
    by_epoch: dict[int, list[Mapping[str, Any]]] = {}
    for run_dir in run_dirs:
        for line in _lines(run_dir):
            if line.get("test_auc") is not None and line.get("train_auc") is not None:
                by_epoch.setdefault(line["epoch"], []).append(line)
    return [
        {"epoch": epoch}
        | {side: fmean(line[side] for line in lines) for side in ("train_auc", "test_auc")}
        for epoch, lines in sorted(by_epoch.items())
    ]


def _lines(run_dir: Path) -> Iterable[Mapping[str, Any]]:
    log = run_dir / "metrics.jsonl"
    if not log.is_file():  # method bias takes no step
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _slices(plan: Plan, name: str, activity: "Activity") -> dict[str, float | None]:
    """GAUC by how often training showed the item, by its age, and by the user's activity."""
    by_slice: dict[str, list[float | None]] = {}
    for seed in plan.seeds:
        run_dir = plan.run_dir(name, seed)
        told = read_json(run_dir / METRICS)["slices"]
        found = {each: figures["gauc"] for each, figures in told.items()}
        for each, value in (found | activity.gaucs(run_dir / PREDICTIONS)).items():
            by_slice.setdefault(each, []).append(value)
    return {
        each: fmean(v for v in values if v is not None) if None not in values else None
        for each, values in by_slice.items()
    }


class Activity:
    """Users of the test split in three equal parts by their requests in training."""

    def __init__(self, data: Path) -> None:
        self.data = data

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Users of training, ascending, and their requests."""
        return np.unique(read_users(self.data / "requests" / "train"), return_counts=True)

    def gaucs(self, predictions: Path) -> dict[str, float | None]:
        """GAUC of each third, by its name in ``THIRDS``."""
        table = pq.read_table(predictions)
        user_ids, labels, logits = (
            table[each].to_numpy() for each in ("user_id", "label", "logit")
        )
        users, owners = np.unique(user_ids, return_inverse=True)
        known, counts = self.counts
        place = np.minimum(np.searchsorted(known, users), len(known) - 1)
        requests = np.where(known[place] == users, counts[place], 0)
        third = np.empty(len(users), np.int64)
        third[np.argsort(requests, kind="stable")] = np.arange(len(users)) * 3 // len(users)
        found = {}
        for number, name in enumerate(THIRDS):
            chosen = third[owners] == number
            value = gauc(user_ids[chosen], labels[chosen], logits[chosen]).gauc
            found[name] = None if np.isnan(value) else value
        return found
