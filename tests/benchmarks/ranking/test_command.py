"""Somebody else's command beside ours."""

import shlex
import sys

import pytest

from torchrec_mm.benchmarks.ranking.command import command_speed
from torchrec_mm.errors import InputError


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def test_the_last_line_with_a_speed_counts_and_the_threads_are_told():
    code = (
        "import json, os; print('noise'); print(json.dumps({'impressions_per_s': 1}));"
        "print(json.dumps({'impressions_per_s': 10 * int(os.environ['OMP_NUM_THREADS'])}));"
        "print('[1, 2]')"
    )
    assert command_speed(python(code), threads=3) == 30.0


def test_no_shell_reads_the_command():
    code = "import json, sys; print(json.dumps({'impressions_per_s': len(sys.argv)}))"
    assert command_speed(python(code) + " $HOME ; exit 3", threads=1) == 5.0


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-command-here", "baseline_command must be a command"),
        (python("exit(3)"), "baseline_command must exit with 0, got 3"),
        (python("print('fast')"), "baseline_command must print a line .* got 'fast"),
        (python("print('{\"impressions_per_s\": 0}')"), "baseline_command must print a line"),
    ],
)
def test_a_command_that_gives_no_speed_is_refused(command, message):
    with pytest.raises(InputError, match=message):
        command_speed(command, threads=1)
