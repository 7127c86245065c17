"""Every command of torchx_components/README.md prints the app that it would launch."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import LAUNCHING, ROOT, commands_of


@pytest.mark.parametrize("command", [command.line for command in commands_of(LAUNCHING)])
def test_a_command_prints_the_app_it_would_launch(command):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(command),
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "apps.train_ranker" in done.stdout
