"""environment.json: one entry a start, whatever the machine has."""

import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch

from torchrec_mm.runs import environment_log as starts
from torchrec_mm.runs.environment_log import code_state, log_environment

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *IDENTITY, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def checkout(folder: Path) -> Path:
    """A repository that tracks the code."""
    code = folder / "torchrec_mm" / "runs" / "environment_log.py"
    code.parent.mkdir(parents=True)
    code.write_text("one = 1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return code


def test_each_start_is_an_entry(worker, tmp_path, monkeypatch):
    file = tmp_path / "environment.json"
    log_environment(file, worker)
    (first,) = json.loads(file.read_text())
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    log_environment(file, worker)
    again, second = json.loads(file.read_text())
    assert again == first
    assert (first["nodes"], second["nodes"]) == (1, 2)
    assert first["host"] == platform.node() and first["world_size"] == 1
    assert list(first["devices"]) == [platform.node()]
    assert first["versions"]["python"] == platform.python_version()
    assert first["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert any(name.startswith("fbgemm-gpu") for name in first["versions"])
    assert first["command"] == shlex.join(sys.orig_argv)


def test_the_code_has_a_revision_and_says_whether_it_was_changed(tmp_path):
    code = checkout(tmp_path)
    revision = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "log").write_text("no code")
    assert code_state(tmp_path) == {"revision": revision, "changed": False}
    code.write_text("one = 2\n")
    assert code_state(tmp_path) == {"revision": revision, "changed": True}


def test_a_package_installed_inside_another_checkout_has_no_revision(tmp_path):
    checkout(tmp_path)
    installed = tmp_path / "venv"
    installed.mkdir()
    assert code_state(installed) is None


def test_without_a_checkout_or_without_git_there_is_no_revision(tmp_path, monkeypatch):
    assert code_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state(starts.CODE) is None
