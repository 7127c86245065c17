"""Somebody else's code, timed beside ours: a command that prints its own speed."""

import json
import os
import shlex
import subprocess

from torchrec_mm.errors import InputError

KEY = "impressions_per_s"


def command_speed(command: str, threads: int) -> float:
    """Run ``command``, split as a shell would but without one; its impressions a second.

    It has to print a line that is a JSON object with "impressions_per_s"; the last one counts.

    Raises:
        InputError: it cannot be started, fails, or prints no such line.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(
            shlex.split(command), env=environment, stdout=subprocess.PIPE, encoding="utf-8"
        )
    except OSError as error:
        raise InputError(f"baseline_command must be a command: {error}") from error
    if done.returncode:
        raise InputError(f"baseline_command must exit with 0, got {done.returncode}: {command}")
    for line in reversed(done.stdout.splitlines()):
        speed = _speed_in(line)
        if speed is not None:
            return speed
    raise InputError(
        f'baseline_command must print a line {{"{KEY}": NUMBER}} above 0, '
        f"got {done.stdout[-200:]!r}"
    )


def _speed_in(line: str) -> float | None:
    try:
        speed = json.loads(line)[KEY]
    except (ValueError, TypeError, KeyError):
        return None
    return float(speed) if isinstance(speed, int | float) and speed > 0 else None
