"""Every command of torchx_components/README.md prints the app that it would launch."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import ROOT

README = (ROOT / "torchx_components" / "README.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("command", [line for block in BLOCKS for line in block.splitlines()])
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


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)]+)\)", README))
def test_a_link_leads_somewhere(link):
    assert (ROOT / "torchx_components" / link).exists()
