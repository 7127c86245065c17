"""The page: one HTML file that needs nothing else, neither network nor neighbouring files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torchrec_mm.reporting.encoders import EncoderGroup, category_tables, group_encoders
from torchrec_mm.reporting.figures import epoch_figure, slice_figure, tier_figure
from torchrec_mm.reporting.gallery import GalleryRow
from torchrec_mm.reporting.html import page_templates
from torchrec_mm.reporting.retrieval_files import FOUND, SPHERE, TITLE_METRICS
from torchrec_mm.reporting.runs import EpochAuc, Runs
from torchrec_mm.reporting.summary import (
    CONTROL,
    METRICS,
    Gain,
    Group,
    Spread,
    baseline,
    group_runs,
)
from torchrec_mm.reporting.tiers import TierHistogram

MAX_CURVES = 6


@dataclass(frozen=True)
class Headline:
    """One figure of those the page opens with, already in words."""

    name: str
    figure: str
    detail: str


@dataclass(frozen=True)
class ResultRow:
    """A group's line of the result table; gains are None for the group compared with itself."""

    group: Group
    spreads: dict[str, Spread]
    gains: dict[str, Gain | None]


def render_page(
    report: dict[str, Any],
    runs: Runs,
    histograms: dict[str, TierHistogram],
    pictures: Sequence[GalleryRow],
) -> str:
    """The whole page as HTML; every text from outside is escaped.

    Args:
        report: what report.json holds.
        runs: what it was made from.
        histograms: by vector set, empty when there are no vectors or data.
        pictures: rows of the gallery, may be empty.
    """
    groups = group_runs(runs.rankers)
    base, control = baseline(groups, "id"), baseline(groups, CONTROL)
    rows = [_result_row(group, base, control) for group in groups]
    encoders = group_encoders(runs.pretraining)
    environment = page_templates()
    environment.filters |= {"number": _number, "signed": _signed, "duration": _duration}
    return environment.get_template("page.html").render(
        report=report,
        rows=rows,
        base=base,
        control=control,
        best={metric: _best(rows, metric) for metric in METRICS},
        headlines=list(_headlines(rows, encoders)),
        counts=next((r for r in runs.rankers if r.impressions is not None), None),
        encoders=encoders,
        found=FOUND,
        sphere=SPHERE,
        titles=TITLE_METRICS,
        best_found={
            metric: max(_known(group.metric(metric).mean for group in encoders), default=None)
            for metric in FOUND
        },
        category_tables=category_tables(encoders),
        frequency_figure=slice_figure(
            groups, "item_frequency/", base, "times the item was a candidate in training"
        ),
        age_figure=slice_figure(groups, "item_age/", base, "age of the item at the request"),
        epoch_figure=epoch_figure(_curves(groups, runs)),
        tier_figure=tier_figure(histograms),
        histograms=histograms,
        gallery=pictures,
    )


def _result_row(group: Group, base: Group | None, control: Group | None) -> ResultRow:
    spreads = {metric: group.spread(metric) for metric in METRICS}
    gains = {}
    for name, other in (("id", base), ("control", control)):
        for metric in ("auc", "gauc"):
            gains[f"{metric}_{name}"] = (
                Gain.between(spreads[metric], other.spread(metric))
                if other is not None and other is not group
                else None
            )
    return ResultRow(group, spreads, gains)


def _best(rows: Sequence[ResultRow], metric: str) -> float | None:
    """The best mean of a column: lowest log loss, highest of the others."""
    best = min if metric == "log_loss" else max
    return best(_known(row.spreads[metric].mean for row in rows), default=None)


def _headlines(rows: Sequence[ResultRow], encoders: Sequence[EncoderGroup]) -> Iterator[Headline]:
    top = _best(rows, "gauc")
    if top is not None:
        champion = next(row for row in rows if row.spreads["gauc"].mean == top)
        yield Headline("best GAUC", _number(top), champion.group.label)
        for key, name in (("gauc_id", "over id"), ("gauc_control", "over random vectors")):
            gain = champion.gains[key]
            if gain is not None:
                relative = f"{_signed(100 * gain.relative, 2)} % relative"
                yield Headline(f"its GAUC {name}", _signed(gain.difference), relative)
    recall = {
        encoder: max(
            _known(each.metric("recall@10").mean for each in encoders if each.encoder == encoder),
            default=None,
        )
        for encoder in ("scl", "off-the-shelf")
    }
    if recall["scl"] is not None:
        detail = f"off the shelf {_number(recall['off-the-shelf'], 3)}"
        yield Headline("SCL, Recall@10", _number(recall["scl"], 3), detail)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _curves(groups: Sequence[Group], runs: Runs) -> list[tuple[str, tuple[EpochAuc, ...]]]:
    """Curves of more than one epoch with a test AUC: rankers, then MAKE's own trainings."""
    every = [(group.label, group.epochs) for group in groups]
    every += [(curve.name, curve.epochs) for curve in runs.curves]
    several = [
        (label, curve)
        for label, curve in every
        if len(curve) > 1 and any(point.test_auc is not None for point in curve)
    ]
    return several[:MAX_CURVES]


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "–"
    return f"{value:+.{digits}f}".replace("-", "−")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
