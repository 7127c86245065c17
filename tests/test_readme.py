"""What the README and the pages of long commands tell people to type is what the commands take."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.helpers.commands import PARSED, ROOT, commands_of
from torchrec_mm.online import flags as flags_of_following
from torchx_components import slurm

COMMANDS = sorted({command.line for page in PARSED for command in commands_of(page)})


def starting_with(*words: str) -> list[str]:
    found = [command for command in COMMANDS if command.split()[: len(words)] == list(words)]
    assert found
    return found


def accepts(app: str, flags: list[str], capsys) -> None:
    """The app parses the flags: it prints the config they give and leaves with 0."""
    with pytest.raises(SystemExit) as left:
        import_module(app).main([*flags, "--print_config"])
    assert left.value.code == 0
    assert capsys.readouterr().out


def test_every_command_is_of_a_kind_that_is_tested():
    kinds = {command.split()[0] for command in COMMANDS}
    assert kinds <= {"make", "python", "torchrun", "torchx", "source"}
    assert set(PYTHON) == {*APPS, *starting_with("python", "-m", "torchx_components.slurm")}


PYTHON = starting_with("python", "-m")
APPS = [command for command in PYTHON if command.split()[2].startswith("apps.")]


@pytest.mark.parametrize("command", APPS)
def test_a_python_command_parses(command, capsys, monkeypatch):
    # With follow, flags that are not given are those of a run, which is not here.
    monkeypatch.setattr(flags_of_following, "read_run", lambda path, kind: ({}, {}))
    _, _, app, *flags = shlex.split(command)
    accepts(app, flags, capsys)


@pytest.mark.parametrize("command", starting_with("python", "-m", "torchx_components.slurm"))
def test_a_slurm_command_prints_a_script_that_the_app_understands(command, capsys):
    _, _, _, *words = shlex.split(command)
    assert "--dry-run" in words and slurm.main(words) == 0
    (component,) = (word for word in words if word.startswith("torchx_components/"))
    app = f"apps.{component.partition(':')[2]}"
    assert app in capsys.readouterr().out
    accepts(app, words[words.index("--") + 1 :], capsys)


@pytest.mark.parametrize("command", starting_with("torchrun"))
def test_a_torchrun_command_parses(command, capsys):
    words = shlex.split(command)
    launcher, (_, app, *flags) = words[1 : words.index("-m")], words[words.index("-m") :]
    assert launcher[0] == "--nproc-per-node" and len(launcher) == 2
    accepts(app, flags, capsys)


@pytest.mark.parametrize("command", starting_with("torchx", "run"))
def test_a_torchx_command_is_understood_by_torchx_and_by_the_app(command, capsys):
    torchx = Path(sys.executable).with_name("torchx")
    words = shlex.split(command)
    dry = [torchx, "run", "--dryrun", *words[2:]]
    done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (component,) = (word for word in words if word.startswith("torchx_components/"))
    app = f"apps.{component.partition(':')[2]}"
    assert app in done.stdout
    accepts(app, words[words.index("--") + 1 :], capsys)


@pytest.mark.parametrize("command", starting_with("make"))
def test_a_make_command_has_a_target(command):
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
