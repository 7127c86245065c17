"""Figures as inline SVG that follows the page's colours, light or dark."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchrec_mm.reporting.runs import EpochAuc
from torchrec_mm.reporting.summary import Group
from torchrec_mm.reporting.tiers import NUM_TIERS, TierHistogram

INK = "#010203"  # replaced by the page's text colour
COLOURS = {
    "bias": "#a3a9b3",
    "id": "#6b7480",
    "vector": "#d9a006",
    "simscore": "#1fa37a",
    "simtier": "#3b82d9",
    "make": "#9a6be0",
    "simtier+make": "#e5502e",
    "codes": "#c2578a",
}
CLICKED, OTHERS = "#e5502e", "#8a93a0"
MARKERS = "os^Dv"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}


def slice_figure(groups: Sequence[Group], prefix: str, base: Group | None, xlabel: str) -> Markup:
    """GAUC by slice, one line a group; beside it the gain over ``base`` when there is one.

    Slices without a GAUC in any group are left out; "" when none is left.
    """
    names = _slices_of(groups, prefix)
    if not names:
        return Markup()
    with matplotlib.rc_context(STYLE):
        panels = 2 if base else 1
        figure = Figure(figsize=(8.6 if base else 5.4, 3.9), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        _slice_lines(axes[0], groups, [prefix + name for name in names], None)
        axes[0].set_title("GAUC")
        if base:
            _slice_lines(axes[1], groups, [prefix + name for name in names], base)
            axes[1].axhline(0, color=INK, linewidth=0.8)
            axes[1].set_title(f"GAUC minus that of {base.label}")
        for axis in axes:
            axis.set_xticks(range(len(names)), [_tick(groups, prefix, name) for name in names])
            axis.set_xlim(-0.3, len(names) - 0.7)
            axis.set_xlabel(xlabel)
            axis.grid(axis="y")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        return _svg(figure, prefix, f"GAUC by {xlabel}")


def epoch_figure(curves: Sequence[tuple[str, Sequence[EpochAuc]]]) -> Markup:
    """Train and test AUC by epoch, one panel a curve on one scale; "" without a curve."""
    if not curves:
        return Markup()
    with matplotlib.rc_context(STYLE):
        columns = min(3, len(curves))
        rows = -(-len(curves) // columns)
        figure = Figure(figsize=(2.9 * columns + 0.4, 2.5 * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axis, (label, curve) in zip(panels, curves, strict=False):
            _epoch_panel(axis, label, curve)
        for axis in panels[len(curves) :]:
            axis.remove()
        for axis in panels[: len(curves) : columns]:
            axis.set_ylabel("AUC")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        return _svg(figure, "epochs", "Train and test AUC by epoch")


def tier_figure(histograms: dict[str, TierHistogram]) -> Markup:
    """Share of behaviours per tier for clicked and other impressions, one panel a vector set."""
    if not histograms:
        return Markup()
    edges = np.linspace(-1, 1, NUM_TIERS + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * len(histograms) + 0.4, 3.3), layout="constrained")
        panels = figure.subplots(1, len(histograms), squeeze=False, sharey=True)[0]
        for axis, (name, histogram) in zip(panels, histograms.items(), strict=True):
            axis.stairs(histogram.others, edges, color=OTHERS, fill=True, alpha=0.45)
            axis.stairs(histogram.others, edges, color=OTHERS, label="not clicked")
            axis.stairs(histogram.clicked, edges, color=CLICKED, linewidth=2, label="clicked")
            axis.set_title(name)
            axis.set_xlabel("cosine of target item and behaviour")
            axis.set_xlim(-1, 1)
            axis.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
            axis.grid(axis="y")
        panels[0].set_ylabel("share of behaviours")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return _svg(figure, "tiers", "Share of behaviours per tier of similarity")


def interval_figure(rows: Sequence[tuple[str, float, float, float]], xlabel: str) -> Markup:
    """A line a row, the first on top: its name, then value, low and high of an interval."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 0.42 * len(rows) + 0.9), layout="constrained")
        axis = figure.subplots()
        for place, (_, value, low, high) in enumerate(rows):
            axis.plot([low, high], [place, place], color=OTHERS, linewidth=2)
            axis.plot([value], [place], "o", color=CLICKED, markersize=6)
        axis.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axis.invert_yaxis()
        axis.set_xlabel(xlabel)
        axis.grid(axis="x")
        return _svg(figure, "intervals", xlabel)


def _slices_of(groups: Sequence[Group], prefix: str) -> list[str]:
    """Names without the prefix, in the order of the runs, of slices that some run has a GAUC of."""
    every = [run.slices for group in groups for run in group.runs]
    names = dict.fromkeys(name for slices in every for name in slices if name.startswith(prefix))
    measured = {name for slices in every for name in slices if slices[name]["gauc"] is not None}
    return [name.removeprefix(prefix) for name in names if name in measured]


def _slice_lines(
    axis: Axes, groups: Sequence[Group], names: Sequence[str], base: Group | None
) -> None:
    seen: dict[str, int] = {}
    for group in groups:
        family = group.method.removesuffix("/random")
        nth = seen[family] = seen.get(family, -1) + 1
        spreads = [group.slice_spread(name) for name in names]
        zero = [base.slice_spread(name).mean if base else 0.0 for name in names]
        mean = np.array(
            [
                np.nan if spread.mean is None or origin is None else spread.mean - origin
                for spread, origin in zip(spreads, zero, strict=True)
            ]
        )
        axis.errorbar(
            np.arange(len(names)),
            mean,
            yerr=[spread.half_range or 0.0 for spread in spreads],
            color=COLOURS.get(family, "#b0487f"),
            linestyle=":" if group.method.endswith("/random") else "-",
            marker=MARKERS[nth % len(MARKERS)],
            markersize=4.5,
            linewidth=1.6,
            elinewidth=0.8,
            label=group.label,
        )


def _tick(groups: Sequence[Group], prefix: str, name: str) -> str:
    """The slice's name above its number of impressions."""
    slices = [run.slices.get(prefix + name, {}) for group in groups for run in group.runs]
    known = [s["impressions"] for s in slices if s.get("impressions") is not None]
    return f"{name}\n{max(known):,}" if known else name


def _epoch_panel(axis: Axes, label: str, curve: Sequence[EpochAuc]) -> None:
    epochs = [point.epoch for point in curve]
    for side, style, colour in (("train", "--", OTHERS), ("test", "-", CLICKED)):
        values = [getattr(point, f"{side}_auc") for point in curve]
        values = [np.nan if value is None else value for value in values]
        axis.plot(epochs, values, style, color=colour, marker="o", markersize=4, label=side)
        if side == "test" and not np.isnan(values).all():
            best = int(np.nanargmax(values))
            axis.plot(
                epochs[best], values[best], "o", color=colour, markersize=9, fillstyle="none",
                label="best test",
            )  # fmt: skip
    axis.set_title(label)
    axis.set_xticks(epochs)
    axis.set_xlabel("epoch")
    axis.grid(axis="y")


def _svg(figure: Figure, salt: str, title: str) -> Markup:
    """The figure as an <svg> element; text stays text and takes the page's font and colour."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', r'\1 style="width:\2pt"', svg, count=1)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
    return Markup(svg.replace(INK, "currentColor"))
