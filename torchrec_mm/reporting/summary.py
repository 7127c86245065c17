"""Runs of one kind, differing in seed only, become one row: mean, spread, gain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torchrec_mm.reporting.runs import EpochAuc, RankerRun

CONTROL = "simtier+make/random"
METHODS = (
    *("bias", "id", "vector", "simscore", "simtier", "make", "simtier+make", "codes", "muse"),
    CONTROL,
)
METRICS = ("auc", "gauc", "log_loss")


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and half the range between the lowest and the highest.

    mean: None when no run has the figure. half_range: None for fewer than two.
    """

    mean: float | None
    half_range: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread":
        known = [value for value in values if value is not None]
        if not known:
            return cls(None, None)
        half_range = (max(known) - min(known)) / 2 if len(known) > 1 else None
        return cls(sum(known) / len(known), half_range)


@dataclass(frozen=True)
class Gain:
    """Difference of two means.

    beyond_seeds: True where it exceeds both half ranges together; None where a side has one run.
    """

    difference: float
    relative: float
    beyond_seeds: bool | None

    @classmethod
    def between(cls, ours: Spread, base: Spread) -> "Gain | None":
        if ours.mean is None or base.mean is None:
            return None
        difference = ours.mean - base.mean
        beyond = None
        if ours.half_range is not None and base.half_range is not None:
            beyond = abs(difference) > ours.half_range + base.half_range
        return cls(difference, difference / base.mean if base.mean else 0.0, beyond)


@dataclass(frozen=True)
class Group:
    """The runs of one method on one set of vectors for one number of epochs.

    detail: what tells this group from others of its method ("image", "scl · 3 epochs"), else "".
    """

    method: str
    detail: str
    runs: tuple[RankerRun, ...]

    @property
    def label(self) -> str:
        return f"{self.method} · {self.detail}" if self.detail else self.method

    @property
    def seeds(self) -> str:
        return ", ".join(str(run.seed) for run in self.runs)

    def spread(self, metric: str) -> Spread:
        """Mean and spread of "auc", "gauc" or "log_loss" over the seeds."""
        return Spread.of(getattr(run, metric) for run in self.runs)

    def slice_spread(self, name: str, metric: str = "gauc") -> Spread:
        """The same within one slice of the test set."""
        return Spread.of(run.slices.get(name, {}).get(metric) for run in self.runs)

    @property
    def epochs(self) -> tuple[EpochAuc, ...]:
        return mean_epochs([run.epochs for run in self.runs])


def group_runs(runs: Sequence[RankerRun]) -> list[Group]:
    """Groups in the order of ``METHODS``, other methods after them by name."""
    keyed: dict[tuple, list[RankerRun]] = {}
    for run in sorted(runs, key=lambda run: (_order(run.method), _key(run), run.seed, run.name)):
        keyed.setdefault(_key(run), []).append(run)
    groups = []
    for key, members in keyed.items():
        siblings = [other for other in keyed if other[0] == key[0]]
        differing = [
            part
            for position, part in enumerate(key[1:], start=1)
            if len({other[position] for other in siblings}) > 1
        ]
        detail = " · ".join(_words(part) for part in differing if part)
        groups.append(Group(key[0], detail, tuple(members)))
    return groups


def baseline(groups: Sequence[Group], method: str) -> Group | None:
    """The group others are compared with: the method's first, that of the fewest epochs."""
    return next((group for group in groups if group.method == method), None)


def mean_epochs(curves: Sequence[Sequence[EpochAuc]]) -> tuple[EpochAuc, ...]:
    """Mean over seeds, epoch by epoch."""
    by_epoch: dict[int, list[EpochAuc]] = {}
    for curve in curves:
        for point in curve:
            by_epoch.setdefault(point.epoch, []).append(point)
    return tuple(
        EpochAuc(
            epoch,
            Spread.of(point.train_auc for point in points).mean,
            Spread.of(point.test_auc for point in points).mean,
        )
        for epoch, points in sorted(by_epoch.items())
    )


def _key(run: RankerRun) -> tuple[str, int, str, str]:
    vectors = run.vectors or {"encoder": "", "modality": ""}
    return run.method, max(1, len(run.epochs)), vectors["encoder"], vectors["modality"]


def _order(method: str) -> tuple[int, str]:
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def _words(part: int | str) -> str:
    return f"{part} epoch{'s' if part != 1 else ''}" if isinstance(part, int) else part
