"""From a scorer's log and outcomes to requests with labels: a data set, or one file more."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torchrec_mm.data.logs.log_format import LogFormat
from torchrec_mm.data.public.tables import Tables
from torchrec_mm.data.served.labels import Labeller
from torchrec_mm.data.served.log_files import ServedLog, labelled_files
from torchrec_mm.data.served.outcomes import read_outcomes
from torchrec_mm.data.served.write import add_file, write_data_set
from torchrec_mm.errors import InputError


def prepare_request_log(
    folder: Path,
    run_dir: Path,
    log_format: LogFormat,
    scratch: Path,
    *,
    outcomes: Path,
    items: Path | None,
    test_share: float,
    events: Mapping[str, Sequence[str]],
    wait_s: int,
    add: bool,
    memory_gb: float,
) -> list[str]:
    """Label the requests of a log that are old enough.

    Args:
        folder: that ``apps.serve --log`` writes to. run_dir: to make; with ``add``, to add to.
        log_format: of the outcomes. scratch: folder that is there, for rows on their way.
        outcomes, events: see ``read_outcomes``; of events the kinds of click. wait_s: see
        ``Labeller``. items, test_share: see ``write_data_set``. memory_gb: of this process.

    Returns:
        A line on each thing worth knowing.

    Raises:
        InputError: no request is old enough for a data set, and what these refuse.
    """
    done = labelled_files(run_dir) if add else set()
    log = ServedLog.open(folder, time.time() - wait_s, done)
    notes = [*log.notes(wait_s)]
    if not log.ripe and add:
        return [*notes, "nothing in the log is new: no file is added"]
    if not log.ripe:
        rule = f"{folder} must hold files of requests older than wait_s = {wait_s} seconds alone"
        raise InputError(f"{rule}, got {log.young_rows} requests in files with younger ones")
    found = read_outcomes(outcomes, log_format, events.get("click", ["click"]), scratch)
    labeller = Labeller(log, found, wait_s, Tables(folder, scratch, memory_gb))
    notes += found.notes
    if add:
        return notes + add_file(labeller, run_dir)
    return notes + write_data_set(labeller, run_dir, items, test_share)
