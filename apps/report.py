"""One table and one page of all runs of a folder.

python -m apps.report --runs DIR --run_dir DIR
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.config import parse, run
from torchrec_mm.reporting.report import PAGE_FILE, ReportInputs, write_report


@dataclass(frozen=True)
class ReportConfig:
    """Put all runs of a folder into one table and one page: report.json and report.html."""

    runs: Path
    """Folder that holds run folders at any depth: metrics.json, metrics.jsonl, retrieval.json."""
    run_dir: Path
    """Where the two files go; may be the folder of the runs, must not hold a report yet."""
    data: Path | None = None
    """Folder with items/ and requests/test, for pictures and similarities."""
    off_the_shelf_vectors: Path | None = None
    """Item vectors of the encoder nobody trained."""
    scl_vectors: Path | None = None
    """Item vectors of the encoder pre-trained here."""
    title: str = "Item vectors in click-through-rate ranking"
    """Heading of the page."""
    seconds: float | None = None
    """What the runs took together, in seconds."""


def main(argv: Sequence[str] | None = None) -> None:
    config = parse(ReportConfig, argv)
    vectors = {"off the shelf": config.off_the_shelf_vectors, "SCL": config.scl_vectors}
    inputs = ReportInputs(
        runs=config.runs,
        data=config.data,
        vectors={name: path for name, path in vectors.items() if path is not None},
        title=config.title,
        seconds=config.seconds,
    )
    write_report(inputs, config.run_dir)
    print(config.run_dir / PAGE_FILE)


if __name__ == "__main__":
    sys.exit(run(main))
