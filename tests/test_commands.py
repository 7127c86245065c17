"""The script torchrec-mm: what it lists, runs and refuses."""

import subprocess
import sys

import pytest

from tests.test_architecture import APPS
from torchrec_mm import commands as module
from torchrec_mm.commands import commands, component_of, main, module_of


@pytest.fixture
def script(monkeypatch):
    """Its status after the words that follow its name."""

    def script(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["/usr/bin/torchrec-mm", *words])
        return main()

    return script


def test_every_command_has_its_line(script, capsys):
    assert set(commands()) == {path.stem for path in APPS}
    for words in ((), ("--help",), ("-h",)):
        assert script(*words) == 0
        lines = capsys.readouterr().out.splitlines()
        for name, line in commands().items():
            assert line[0].isupper() and line.endswith(".") and f"  {name:18}{line}" in lines


def test_the_list_is_there_before_anything_heavy_is_loaded():
    code = "import sys; sys.argv[1:] = []; from torchrec_mm.commands import main; main();"
    code += "print({'torch', 'numpy', 'pyarrow', 'jsonargparse'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("trian_ranker", "train_ranker, train_make"),
        ("report.py", "report"),
        ("xyzzy", "torchrec-mm --help, for all of them"),
    ],
)
def test_a_command_that_does_not_exist_is_refused_and_near_ones_named(script, capsys, typed, near):
    assert script(typed) == 2
    assert capsys.readouterr().err == f"error: unknown command: {typed}; try {near}\n"


def test_a_commands_status_is_the_scripts(script, capsys):
    assert script("pack", "--speed", "1") == 2
    assert capsys.readouterr().err == "error: unknown flag: --speed 1\n"


@pytest.mark.parametrize("words", ["pack", "benchmark memory"])
def test_help_calls_a_command_what_the_user_typed(script, capsys, words):
    with pytest.raises(SystemExit):
        script(*words.split(), "--help")
    assert capsys.readouterr().out.startswith(f"usage: torchrec-mm {words} ")


def test_in_a_checkout_commands_and_components_are_beside_the_library():
    assert module_of("pack") == "apps.pack"
    assert component_of("ranking", "evaluate") == "torchx_components/ranking.py:evaluate"


def test_a_command_that_the_wrong_build_breaks_names_the_cure(script, capsys, monkeypatch):
    def broken(name: str) -> None:
        raise OSError("libnvidia-ml.so.1: cannot open shared object file")

    monkeypatch.setattr(module, "import_module", broken)
    monkeypatch.setattr(module, "commands", lambda: {"pack": ""})
    monkeypatch.setattr(module, "version_problem", lambda: "fbgemm-gpu does not belong here")
    assert script("pack") == 2
    assert capsys.readouterr().err == "error: fbgemm-gpu does not belong here\n"
    monkeypatch.setattr(module, "version_problem", lambda: None)
    with pytest.raises(OSError, match="libnvidia"):
        script("pack")
