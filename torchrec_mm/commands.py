"""torchrec-mm COMMAND [flags], and which module a command is.

A checkout has the commands in apps/, beside the library. The wheel has them inside the library, so
that it takes one top-level name and not that of a user's own apps/.
"""

import ast
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torchrec_mm.config import run
from torchrec_mm.environment import version_problem
from torchrec_mm.errors import InputError


def module_of(command: str) -> str:
    """What follows ``python -m``: ``apps.COMMAND``, or ``torchrec_mm.apps.COMMAND``."""
    return f"{_home()}.{command}"


def component_of(phase: str, command: str) -> str:
    """What follows ``torchx run``: a function of a file, or by what name the wheel offers it."""
    if _home() == "apps":
        return f"torchx_components/{phase}.py:{command}"
    return f"torchrec_mm.{phase}.{command}"


def call(command: str, *flags: Any) -> None:
    """Run a command in this process; flags are words and values of any type."""
    try:
        module = import_module(module_of(command))
    except (ImportError, OSError) as error:  # OSError: a build of fbgemm for another machine
        if problem := version_problem():
            raise InputError(problem) from error
        raise
    module.main([str(flag) for flag in flags])


def commands() -> dict[str, str]:
    """The first line of each command's docstring, by name; no command is imported."""
    (folder,) = import_module(_home()).__path__
    return {file.stem: _first_line(file) for file in sorted(Path(folder).glob("[!_]*.py"))}


def main() -> int:
    """The script torchrec-mm; its status is the command's."""
    return run(_run_command)


def _home() -> str:
    return "torchrec_mm.apps" if find_spec("torchrec_mm.apps") else "apps"


def _first_line(file: Path) -> str:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def _run_command(argv: Sequence[str] | None) -> None:
    name, *flags = (sys.argv[1:] if argv is None else argv) or ["--help"]
    known = commands()
    if name in ("-h", "--help"):
        print("usage: torchrec-mm COMMAND [flags]\n")
        for command, line in known.items():
            print(f"  {command:18}{line}")
        print("\ntorchrec-mm COMMAND --help tells the flags of a command.")
    elif name in known:
        call(name, *flags)
    else:
        near = ", ".join(get_close_matches(name, known)) or "torchrec-mm --help, for all of them"
        raise InputError(f"unknown command: {name}; try {near}")
