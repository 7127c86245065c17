"""Runs of one encoder, differing in seed only, become one row: mean and confidence interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from torchrec_mm.metrics.intervals import mean_and_interval
from torchrec_mm.reporting.retrieval_files import OFF_THE_SHELF, PretrainingRun

# From no training at all to the paper's own.
ENCODERS = (
    "random",
    OFF_THE_SHELF,
    "clip-e",
    "co-click",
    "scl-no-bank",
    "scl-no-in-batch",
    "scl-no-triplet",
    "scl",
)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, None where no run has the figure, and half its 95 % interval.

    half_width: None for fewer than two seeds.
    """

    mean: float | None
    half_width: float | None


@dataclass(frozen=True)
class EncoderGroup:
    """The runs of one encoder that measured the same spaces."""

    encoder: str
    runs: tuple[PretrainingRun, ...]

    @property
    def seeds(self) -> str:
        """The seeds, ascending, "" where no run names one."""
        return ", ".join(str(seed) for seed in self._by_seed() if seed is not None)

    @property
    def spaces(self) -> tuple[str, ...]:
        return tuple(self.runs[0].spaces)

    def metric(self, name: str) -> Interval:
        """Of one of ``RETRIEVAL_METRICS``."""
        return self._interval(lambda run: run.metrics[name])

    def of_space(self, space: str, name: str) -> Interval:
        """The same within one of ``spaces``."""
        return self._interval(lambda run: run.spaces[space][name])

    def titles(self, name: str) -> Interval:
        """Of one of ``TITLE_METRICS``: titles looking for their pictures."""
        return self._interval(lambda run: run.title_to_picture.get(name))

    def of_value(self, attribute: str, value: str) -> Interval:
        """Recall@10 of searches whose purchased item has this value of the attribute."""
        return self._interval(
            lambda run: run.categories.get(attribute, {}).get(value, {}).get("recall@10")
        )

    def _interval(self, figure: Callable[[PretrainingRun], float | None]) -> Interval:
        """Runs of one seed are averaged first: they are no draws of their own."""
        known = [
            [value for value in map(figure, runs) if value is not None]
            for runs in self._by_seed().values()
        ]
        means = [fmean(values) for values in known if values]
        return Interval(*mean_and_interval(means)) if means else Interval(None, None)

    def _by_seed(self) -> dict[int | None, list[PretrainingRun]]:
        by_seed: dict[int | None, list[PretrainingRun]] = {}
        for run in self.runs:
            by_seed.setdefault(run.seed, []).append(run)
        return by_seed


@dataclass(frozen=True)
class CategoryTable:
    """Recall@10 by value of one attribute: the searches of the most frequent values."""

    attribute: str
    searches: dict[str, float | None]


def in_order(runs: Sequence[PretrainingRun]) -> list[PretrainingRun]:
    """Runs in the order of ``ENCODERS``, other encoders after them by name; then by seed."""

    def key(run: PretrainingRun) -> tuple:
        known = ENCODERS.index(run.encoder) if run.encoder in ENCODERS else len(ENCODERS)
        return known, run.encoder, run.seed is None, run.seed or 0, run.name

    return sorted(runs, key=key)


def group_encoders(runs: Sequence[PretrainingRun]) -> list[EncoderGroup]:
    """Groups in the order of ``in_order``."""
    keyed: dict[tuple, list[PretrainingRun]] = {}
    for run in in_order(runs):
        keyed.setdefault((run.encoder, *run.spaces), []).append(run)
    return [EncoderGroup(encoder, tuple(members)) for (encoder, *_), members in keyed.items()]


def category_tables(groups: Sequence[EncoderGroup]) -> list[CategoryTable]:
    """A table an attribute, of the values that the first run with it names."""
    first: dict[str, CategoryTable] = {}
    for run in (run for group in groups for run in group.runs):
        for attribute, values in run.categories.items():
            counts = {value: each["searches"] for value, each in values.items()}
            first.setdefault(attribute, CategoryTable(attribute, counts))
    return list(first.values())
