"""Encoders beside each other: retrieval of several runs each, and how far each is from SCL.

A table is plain data: {space: {metric: estimate}}, where an estimate is {"mean", "interval",
"values"}: the half-width of the 95 % confidence interval over the runs (None for one run), and
the runs' values in order of their seeds; None where it was not measured.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torchrec_mm.metrics.intervals import mean_and_interval

METRICS = {
    "recall@1": "Recall@1",
    "recall@10": "Recall@10",
    "recall@100": "Recall@100",
    "mrr": "MRR",
    "hard_negative_accuracy": "hard-negative accuracy",
}
SPACES = {
    "fused": "Search to item, all modalities together",
    "image": "Query photo to picture",
    "text": "Query text to title",
    "title_to_picture": "Title to picture of the same item",
}
BESIDE = "scl"

Reports = Mapping[int, Mapping[str, Any]]


def encoder_rows(reports: Mapping[str, Reports]) -> list[dict[str, Any]]:
    """A row for each encoder.

    Args:
        reports: retrieval.json by encoder and seed. An encoder that has the same report under
            every seed counts as measured once.

    Returns:
        {"encoder", "runs", "searches": held-out searches by space, "spaces": table, "minus_scl":
        table} each. The differences pair the runs of equal seed; there are none for SCL itself, and
        where SCL is not among them.
    """
    return [
        _row(encoder, of_seeds, {} if encoder == BESIDE else reports.get(BESIDE, {}))
        for encoder, of_seeds in reports.items()
    ]


def to_markdown(rows: Iterable[Mapping[str, Any]], notes: Iterable[str]) -> str:
    """The rows as Markdown: for each space the figures, then the differences; then the notes."""
    rows = list(rows)
    parts = []
    for space, title in SPACES.items():
        if any(space in row["spaces"] for row in rows):
            parts.append(f"## {title}\n\n{_markdown_table(rows, 'spaces', space, '')}")
            if any(space in row["minus_scl"] for row in rows):
                parts.append(f"Minus {BESIDE}, run by run:\n")
                parts[-1] += f"\n{_markdown_table(rows, 'minus_scl', space, '+')}"
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def _row(encoder: str, of_seeds: Reports, beside: Reports) -> dict[str, Any]:
    distinct = _distinct(of_seeds)
    spaces = _figures(distinct)
    first = next(iter(distinct.values()))
    return {
        "encoder": encoder,
        "runs": len(distinct),
        "searches": {space: _figure(first, space, "searches") for space in spaces},
        "spaces": spaces,
        "minus_scl": _differences(of_seeds, beside),
    }


def _distinct(of_seeds: Reports) -> Reports:
    first = next(iter(of_seeds.values()))
    same = all(report == first for report in of_seeds.values())
    return dict(list(of_seeds.items())[:1]) if same else of_seeds


def _table(values: Callable[[str, str], list[float | None]]) -> dict[str, dict[str, Any]]:
    """The spaces of which anything was measured; ``values(space, metric)`` gives one a run."""
    tables = {s: {metric: _estimate(values(s, metric)) for metric in METRICS} for s in SPACES}
    return {space: table for space, table in tables.items() if any(table.values())}


def _figures(of_seeds: Reports) -> dict[str, dict[str, Any]]:
    reports = of_seeds.values()
    return _table(lambda space, metric: [_figure(report, space, metric) for report in reports])


def _differences(of_seeds: Reports, beside: Reports) -> dict[str, dict[str, Any]]:
    pairs = [(of_seeds[seed], beside[seed]) for seed in of_seeds if seed in beside]
    return _table(
        lambda space, metric: [
            _minus(*(_figure(report, space, metric) for report in pair)) for pair in pairs
        ]
    )


def _figure(report: Mapping[str, Any], space: str, metric: str) -> float | None:
    spaces = report["spaces"] | {"title_to_picture": report.get("title_to_picture")}
    return (spaces.get(space) or {}).get(metric)


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _estimate(values: list[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    mean, interval = mean_and_interval(known)
    return {"mean": mean, "interval": interval, "values": known}


def _markdown_table(rows: Iterable[Mapping[str, Any]], key: str, space: str, sign: str) -> str:
    kept = [row for row in rows if space in row[key]]
    metrics = [metric for metric in METRICS if any(row[key][space][metric] for row in kept)]
    lines = [["encoder", "runs", "searches", *(METRICS[metric] for metric in metrics)]]
    lines += [["---", *["---:"] * (len(metrics) + 2)]]
    for row in kept:
        cells = [_cell(row[key][space][metric], sign) for metric in metrics]
        lines += [[row["encoder"], str(row["runs"]), str(row["searches"][space]), *cells]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(estimate: Mapping[str, Any] | None, sign: str) -> str:
    if estimate is None:
        return "–"
    mean = f"{estimate['mean']:{sign}.3f}"
    return mean if estimate["interval"] is None else f"{mean} ± {estimate['interval']:.3f}"
