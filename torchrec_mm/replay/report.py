"""replay.json, the same as a table in Markdown, and as a page with a figure."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torchrec_mm.files import new_file, write_json
from torchrec_mm.replay.measure import FIGURES, SLICES
from torchrec_mm.reporting.figures import interval_figure
from torchrec_mm.reporting.study_page import render_study

JSON_FILE, TABLE_FILE, PAGE_FILE = "replay.json", "replay.md", "replay.html"
ABOUT = {
    "title": "What a new item's vector is worth, by when it arrives",
    "about": "The test split is scored in the order of time, by a live index that has the vectors "
    "that had arrived when a request's window began.",
}
Table = Sequence[Sequence[str]]


def write_replays(rows: Sequence[Mapping[str, Any]], how: Mapping[str, Any], folder: Path) -> None:
    """Write the three files. ``rows``: of ``measure``. ``how``: the flags that made them."""
    write_json(folder / JSON_FILE, {**how, "rows": rows})
    tables = {
        f"Items {name}" if name != "all" else "All items": _table(rows, name) for name in SLICES
    }
    drawn = [(row["name"], row["slices"][SLICES[0]]["gauc"]) for row in rows]
    intervals = [(name, g["value"], g["low"], g["high"]) for name, g in drawn if g is not None]
    figure = interval_figure(intervals, f"GAUC of items {SLICES[0]}") if intervals else ""
    words = _in_words(rows)
    page = render_study(ABOUT, words, tables, figure)
    for name, text in {TABLE_FILE: _in_markdown(words, tables), PAGE_FILE: page}.items():
        with new_file(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")


def _in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    return (
        f"Differences are from “{rows[-1]['name']}”. Brackets hold 95 % of resamples of the users, "
        "and differences are paired by resample; = marks one whose bracket holds 0."
    )


def _table(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    head = ["vectors", "with a vector", "impressions", "AUC", "GAUC", "AUC more", "GAUC more"]
    return [head, *(list(_cells(row["name"], row["slices"][name])) for row in rows)]


def _cells(name: str, of_slice: Mapping[str, Any]) -> Iterator[str]:
    yield name
    coverage = of_slice["coverage"]
    yield "–" if coverage is None else f"{coverage:.1%}"
    yield f"{of_slice['impressions']:,}"
    for each in FIGURES:
        found = of_slice[each]
        yield "–" if found is None else f"{found['value']:.4f} {_bracket(found, '.4f')}"
    for each in FIGURES:
        found = of_slice["against"][each]
        yield "–" if found is None else _difference(found)


def _difference(found: Mapping[str, float]) -> str:
    tie = "= " if found["low"] <= 0 <= found["high"] else ""
    return f"{tie}{found['value']:+.4f} {_bracket(found, '+.4f')}"


def _bracket(found: Mapping[str, float], digits: str) -> str:
    return f"[{found['low']:{digits}}, {found['high']:{digits}}]"


def _in_markdown(words: str, tables: Mapping[str, Table]) -> str:
    parts = [f"# {ABOUT['title']}", ABOUT["about"], words]
    for heading, (head, *lines) in tables.items():
        rule = ["---"] + ["---:"] * (len(head) - 1)
        parts += [
            f"## {heading}",
            "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *lines)),
        ]
    return "\n\n".join(parts) + "\n"
