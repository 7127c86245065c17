"""From run folders to report.json and report.html."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, write_json
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.reporting.encoders import in_order
from torchrec_mm.reporting.gallery import gallery
from torchrec_mm.reporting.machine import describe_machine
from torchrec_mm.reporting.page import render_page
from torchrec_mm.reporting.retrieval_files import PretrainingRun
from torchrec_mm.reporting.runs import RankerRun, find_runs
from torchrec_mm.reporting.tiers import tier_histogram
from torchrec_mm.targets import check_file

JSON_FILE = "report.json"
PAGE_FILE = "report.html"


@dataclass(frozen=True)
class ReportInputs:
    """What a report is made from.

    runs: folder that holds run folders, at any depth.
    data: folder with items/ and requests/test, for pictures and similarities; or None.
    vectors: item vectors by the name the page gives them; may be empty.
    seconds: what the runs took together, None when not known.
    """

    runs: Path
    data: Path | None
    vectors: dict[str, Path]
    title: str
    seconds: float | None


def write_report(inputs: ReportInputs, folder: Path) -> None:
    """Write both files into ``folder``; InputError for no run, a garbled one, an old report."""
    for name in (JSON_FILE, PAGE_FILE):
        if (folder / name).exists():
            raise InputError(f"{folder / name} exists already: name a new folder or remove it")
        check_file(folder / name, "run_dir")
    runs = find_runs(inputs.runs)
    vectors = {name: ItemVectors.open(path) for name, path in inputs.vectors.items()}
    histograms, pictures = {}, []
    if inputs.data is not None and vectors:
        histograms = {name: tier_histogram(inputs.data, each) for name, each in vectors.items()}
        pictures = gallery(inputs.data, vectors)
    report = {
        "title": inputs.title,
        "simulated": _is_simulated(inputs.data),
        "rows": [_ranker_row(run) for run in runs.rankers],
        "pretraining": [_pretraining_row(run) for run in in_order(runs.pretraining)],
        "seconds": inputs.seconds,
        "machine": describe_machine(),
    }
    page = render_page(report, runs, histograms, pictures)
    with new_file(folder / PAGE_FILE) as aside:
        aside.write_text(page, encoding="utf-8", errors="backslashreplace")
    write_json(folder / JSON_FILE, report)


def _ranker_row(run: RankerRun) -> dict[str, Any]:
    row = asdict(run)
    row["run"] = row.pop("name")
    row["epochs"] = len(run.epochs) or None
    return row


def _pretraining_row(run: PretrainingRun) -> dict[str, Any]:
    row = asdict(run)
    row["run"] = row.pop("name")
    return row | row.pop("metrics")


def _is_simulated(data: Path | None) -> bool | None:
    """Whether the data call themselves simulated in market.json; None when there are no data."""
    if data is None:
        return None
    file = data / "market.json"
    if not file.is_file():
        return False
    try:
        return bool(read_json(file)["simulated"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} must be a JSON object with simulated: {error}") from error
