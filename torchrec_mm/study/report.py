"""study.json, the same as a table in Markdown, and as a page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torchrec_mm.files import new_file, write_json
from torchrec_mm.reporting.study_page import render_study
from torchrec_mm.study.measure import COMPARED, FOUND_BY

JSON_FILE, TABLE_FILE, PAGE_FILE = "study.json", "study.md", "study.html"
WORDS = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss", "calibration": "calibration"}
Table = Sequence[Sequence[str]]


def write_study(study: Mapping[str, Any], folder: Path) -> None:
    """Write the three files, in the place of those of an earlier call."""
    tables = tables_of(study)
    write_json(folder / JSON_FILE, study)
    page = render_study(study, how_it_was_made(study), tables)
    texts = {TABLE_FILE: in_markdown(study, tables), PAGE_FILE: page}
    for name, text in texts.items():
        with new_file(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")


def tables_of(study: Mapping[str, Any]) -> dict[str, Table]:
    """Tables by heading, the first line of each its head."""
    rows = study["rows"]
    found: dict[str, Table] = {"Figures": list(_figures(rows))}
    found["Compared"] = list(_compared(rows))
    if study["encoders"]:
        found["Phase one, and what comes of it"] = list(_joined(rows, study["encoders"]))
    if study["claims"]:
        said = ("is not above", "is above")
        found["Claims, by GAUC"] = [["row", "", "row"]] + [
            [claim["above"], said[claim["holds"]], claim["below"]] for claim in study["claims"]
        ]
    if any(row.get("slices") for row in rows):
        found["GAUC by slice"] = list(_slices(rows))
    found["AUC by epoch, train / test"] = list(_epochs(rows))
    return {heading: table for heading, table in found.items() if len(table) > 1}


def in_markdown(study: Mapping[str, Any], tables: Mapping[str, Table]) -> str:
    """The study as a text."""
    parts = [f"# {study['title']}", study["about"], how_it_was_made(study)]
    for heading, (head, *lines) in tables.items():
        rule = ["---"] + ["---:"] * (len(head) - 1)
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
        parts += [f"## {heading}", body]
    return "\n\n".join(parts) + "\n"


def how_it_was_made(study: Mapping[str, Any]) -> str:
    """What makes the comparison fair, in words."""
    options = "; ".join(in_words(option) for option in study["tune"])
    tuned = (
        f"Each row was tried with {options} on the last {study['validation']:.0%} of training and "
        "trained on all of it with what had the highest AUC + GAUC there."
        if len(study["tune"]) > 1
        else "No row was tuned."
    )
    return (
        f"{tuned} Figures are means over {len(study['seeds'])} seeds on the test split, ± the "
        f"seeds' standard deviation; brackets hold 95 % of {study['resamples']} resamples of its "
        "users, differences are paired by resample, and = marks one whose bracket holds 0."
    )


def in_words(option: Mapping[str, Any]) -> str:
    """Flags as a reader writes them."""
    return ", ".join(f"{name} {value}" for name, value in option.items()) or "the defaults"


def _figures(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    yield ["row", *WORDS.values(), "parameters", "impressions/s", "tuned to"]
    for row in rows:
        cells = []
        for name in WORDS:
            figure = row["figures"][name]
            digits = 3 if name == "calibration" else 4
            spread = f" ± {figure['deviation']:.{digits}f}" if figure["deviation"] else ""
            within = f"[{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
            cells.append(f"{figure['value']:.{digits}f}{spread} {within}")
        speed = row["impressions_per_s"]
        costs = [f"{row['parameters']:,}", "–" if speed is None else f"{speed:,.0f}"]
        yield [row["row"], *cells, *costs, in_words(row["option"])]


def _compared(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    yield ["row", "against", *(WORDS[name] for name in COMPARED)]
    for row in rows:
        for other, differences in row["against"].items():
            yield [row["row"], other, *(difference(differences[name]) for name in COMPARED)]


def _joined(
    rows: Sequence[Mapping[str, Any]], encoders: Mapping[str, Mapping[str, float | None]]
) -> Iterator[list[str]]:
    yield ["row", "encoder", *FOUND_BY, "AUC", "GAUC"]
    for row in rows:
        if row["encoder"] in encoders:
            found = [encoders[row["encoder"]][name] for name in FOUND_BY]
            reached = [f"{row['figures'][name]['value']:.4f}" for name in ("auc", "gauc")]
            told = ["–" if value is None else f"{value:.3f}" for value in found]
            yield [row["row"], row["encoder"], *told, *reached]


def difference(it: Mapping[str, float]) -> str:
    """One difference, its bracket and its p-value; a tie says so."""
    tie = "= " if it["low"] <= 0 <= it["high"] else ""
    within = f"[{it['low']:+.4f}, {it['high']:+.4f}]"
    return f"{tie}{it['value']:+.4f} {within} p {it['p']:.3f}"


def _slices(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    names = list(dict.fromkeys(name for row in rows for name in row["slices"]))
    yield ["row", *names]
    for row in rows:
        found = [row["slices"].get(name) for name in names]
        yield [row["row"], *("–" if value is None else f"{value:.4f}" for value in found)]


def _epochs(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    curves = {row["row"]: row["epochs"] for row in rows}
    curves |= {f"MAKE alone, of {row['row']}": row["epochs_of_make"] for row in rows}
    most = max(map(len, curves.values()))
    yield ["row", *(str(epoch) for epoch in range(1, most + 1))]
    for name, epochs in curves.items():
        cells = [f"{each['train_auc']:.4f} / {each['test_auc']:.4f}" for each in epochs]
        if cells:
            yield [name, *cells, *["–"] * (most - len(cells))]
