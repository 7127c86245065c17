"""The guides: every command of theirs is run, and what they show is what it prints.

Commands of torchx_components/README.md, which launch, are in tests/slurm/test_readme.py.
"""

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from tests.helpers import forks
from tests.helpers.commands import (
    GUIDES,
    LAUNCHING,
    PARSED,
    README,
    ROOT,
    Command,
    anchors_of,
    commands_of,
    files_of,
    links_of,
    matches,
)
from tests.helpers.forks import TORCHRUN
from torchrec_mm.config import run

PAGES = [LAUNCHING, *PARSED, *GUIDES]
SPECIAL = [(page, c) for page in GUIDES for c in commands_of(page) if c.needs]


def name_of(value: object) -> str:
    """Page or command, in the name of a test."""
    if isinstance(value, Path):
        return str(value.parent.relative_to(ROOT))
    return value.line if isinstance(value, Command) else str(value)


def run_here(folder: Path, app: str, *flags: str) -> tuple[int, str]:
    """An app in this process, which has loaded what it imports; status, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        try:
            status = run(import_module(app).main, list(flags))
        except SystemExit as left:  # --print_config
            status = left.code
    return status, out.getvalue() if status == 0 else err.getvalue()


def run_apart(folder: Path, *words: str) -> tuple[int, str]:
    """A process of its own."""
    here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": here, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    if words[0] == "torchrun":
        done = forks.run([*TORCHRUN, *words[1:]], cwd=folder, env=environment)
    else:
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def run_as_told(folder: Path, command: Command) -> None:
    """Status 0, or 2 where an error is shown; and what is shown is what is printed."""
    line, _, file = command.line.partition(" > ")
    words = shlex.split(line)
    is_app = words[:2] == ["python", "-m"] and words[2].startswith("apps.")
    in_process = is_app and not command.needs
    status, printed = run_here(folder, *words[2:]) if in_process else run_apart(folder, *words)
    refused = (command.shown or "").startswith("error: ")
    assert status == (2 if refused else 0), f"{command.line}\n{printed}"
    if file:
        (folder / file).write_text(printed)
    if command.shown is not None:
        assert matches(command.shown, printed), f"{command.line}\n{printed}"


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> Callable[[Path], Path]:
    """Where the commands of a guide were run in order, but for those that need a component."""

    @cache
    def folder_of(page: Path) -> Path:
        folder = tmp_path_factory.mktemp("guide")
        for name, content in files_of(page).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        for command in commands_of(page):
            if not command.needs:
                run_as_told(folder, command)
        return folder

    return folder_of


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_is_true(page, walked):
    walked(page)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "command"),
    [pytest.param(*each, marks=getattr(pytest.mark, each[1].needs)) for each in SPECIAL],
    ids=name_of,
)
def test_a_command_that_needs_a_component_is_true(page, command, walked):
    run_as_told(walked(page), command)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_guide_is_short(page):
    assert page == README or len(page.read_text().splitlines()) < 120


def test_the_readme_is_short():
    assert README.stat().st_size <= 14_000


@pytest.mark.parametrize(
    ("page", "link"), [(page, link) for page in PAGES for link in links_of(page)], ids=name_of
)
def test_a_link_leads_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.exists()
    assert not anchor or anchor in anchors_of(target)


@pytest.mark.parametrize(
    ("shown", "printed", "alike"),
    [
        ("AUC 0.7012 on 544", "AUC 0.7013 on 544\n", True),
        ("AUC 0.7012 on 544", "AUC 0.7413 on 544\n", False),
        ("AUC 0.7012 on 544", "AUC 0.7012 on 545\n", False),
        ("first\n...\nlast", "first\n1.5 of it\nlast", True),
        ("first\n...\nlast", "first\nmiddle", False),
        ("...\n0.75 to spare", "1.5\n0.25 to spare", False),
        ("...\n0.75 to spare", "1.5\n0.75 to spare", True),
    ],
)
def test_what_is_shown_is_compared(shown, printed, alike):
    assert matches(shown, printed) == alike
