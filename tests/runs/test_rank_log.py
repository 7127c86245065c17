"""logs/: what a rank logs and raises is on disk at once, and the terminal misses nothing."""

import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.runs.rank_log import rank_log

WORKER = Worker(torch.device("cpu"), 3, 4)
ROOT = Path(__file__).parents[2]


def lines_of(folder: Path) -> list[str]:
    return (folder / "rank-00003.log").read_text().splitlines()


def test_each_line_has_time_rank_and_level_those_of_a_traceback_too(tmp_path):
    with pytest.raises(ZeroDivisionError), rank_log(tmp_path, WORKER):
        raise ZeroDivisionError("two\nlines")
    lines = lines_of(tmp_path)
    assert all(re.match(r"[-\dT:]{19}\.\d{3}Z rank 3 [A-Z]+ ", line) for line in lines)
    assert "started as rank 3 of 4 on " in lines[0]
    assert "CRITICAL torchrec_mm: ended by ZeroDivisionError" in lines[1]
    assert lines[2].endswith("Traceback (most recent call last):")
    assert lines[-1].endswith(" lines") and "ZeroDivisionError: two" in lines[-2]


def test_a_second_start_is_appended_and_nothing_is_logged_after_the_block(tmp_path):
    for _ in range(2):
        with rank_log(tmp_path, WORKER):
            logging.getLogger("torchrec_mm.some").info("inside")
        logging.getLogger("torchrec_mm.some").error("outside")
    words = [line.partition("torchrec_mm")[2].split()[1] for line in lines_of(tmp_path)]
    assert words == ["started", "inside", "done"] * 2


def test_what_others_log_counts_from_warnings_on(tmp_path):
    apart = logging.getLogger("apart")
    apart.propagate, apart.level = False, logging.DEBUG
    with rank_log(tmp_path, WORKER):
        for name in ("apart", "other.one"):
            logging.getLogger(name).info("chat")
            logging.getLogger(name).warning("careful")
    apart.propagate = True
    warned = [line.split(" WARNING ")[1] for line in lines_of(tmp_path)[1:-1]]
    assert warned == ["apart: careful", "other.one: careful"]


def test_a_handler_that_a_library_put_on_the_root_shows_what_it_showed(tmp_path):
    seen: list[str] = []
    library = logging.Handler()
    library.emit = lambda record: seen.append(record.getMessage())
    logging.root.addHandler(library)
    with rank_log(tmp_path, WORKER):
        logging.getLogger("torchrec_mm.some").info("quiet")
        logging.getLogger("torchrec_mm.some").warning("loud")
    logging.root.removeHandler(library)
    assert seen == ["loud"]
    assert not library.filters


def test_what_has_no_last_resort_to_show_is_logged_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(logging, "lastResort", None)
    monkeypatch.setattr(logging.root, "handlers", [])
    with rank_log(tmp_path, WORKER):
        logging.getLogger("other").warning("careful")
    assert lines_of(tmp_path)[1].endswith("WARNING other: careful")


@pytest.mark.parametrize("error", [InputError("field must be good"), ZeroDivisionError("ours")])
def test_how_a_rank_ends_is_for_its_log_as_the_command_prints_it_anyway(tmp_path, error, capsys):
    seen: list[str] = []
    library = logging.Handler()
    library.emit = lambda record: seen.append(record.getMessage())
    for handlers in ([], [library]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(logging.root, "handlers", handlers)
            with pytest.raises(type(error)), rank_log(tmp_path, WORKER):
                raise error
    assert seen == [] and capsys.readouterr().err == ""
    assert len([line for line in lines_of(tmp_path) if line.endswith(str(error))]) >= 2


def test_warnings_are_logged_and_still_shown(tmp_path):
    with pytest.warns(UserWarning, match="mind the gap"), rank_log(tmp_path, WORKER):
        warnings.warn("mind the gap", stacklevel=1)
    assert "UserWarning: mind the gap" in lines_of(tmp_path)[1]


def test_an_exit_is_logged_with_its_status(tmp_path):
    with pytest.raises(SystemExit), rank_log(tmp_path, WORKER):
        sys.exit(143)
    assert lines_of(tmp_path)[-1].endswith("left with status 143")


def test_a_users_mistake_is_one_line_of_it(tmp_path):
    with pytest.raises(InputError), rank_log(tmp_path, WORKER):
        raise InputError("field must be\n  good")
    _, line = lines_of(tmp_path)
    assert line.endswith("Z rank 3 ERROR torchrec_mm: error: field must be good")


@pytest.mark.slow
def test_sigkill_loses_nothing_and_stderr_gets_what_it_got(tmp_path):
    program = f"""
import logging, os, pathlib, signal, torch
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.runs.rank_log import rank_log
with rank_log(pathlib.Path({str(tmp_path)!r}), Worker(torch.device("cpu"), 3, 4)):
    logging.getLogger("torchrec_mm.some").info("quiet")
    logging.getLogger("torchrec_mm.some").warning("loud")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == "loud\n"
    assert [line.split()[-1] for line in lines_of(tmp_path)[1:]] == ["quiet", "loud"]
