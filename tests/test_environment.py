"""Releases that do not go together are told before anything is imported, with the cure."""

import ctypes
import re
from importlib import metadata
from pathlib import Path

import pytest

from torchrec_mm import environment
from torchrec_mm.environment import TESTED, TESTED_FBGEMM, fbgemm_build, version_problem

GOOD = TESTED | {"fbgemm-gpu-cpu": TESTED_FBGEMM}


@pytest.fixture
def machine(monkeypatch):
    """A machine with these releases installed, with or without an NVIDIA driver."""

    def build(installed: dict[str, str], driver: bool = False) -> None:
        def version(name):
            if name not in installed:
                raise metadata.PackageNotFoundError(name)
            return installed[name]

        def load(name):
            if not driver:
                raise OSError(f"{name}: cannot open shared object file")

        monkeypatch.setattr(metadata, "version", version)
        monkeypatch.setattr(ctypes, "CDLL", load)
        monkeypatch.setattr(environment.sys, "executable", "/env/bin/python")

    return build


@pytest.mark.parametrize(("driver", "build"), [(False, "fbgemm-gpu-cpu"), (True, "fbgemm-gpu")])
def test_the_driver_decides_which_build_of_fbgemm_belongs_here(machine, driver, build):
    machine(TESTED | {build: TESTED_FBGEMM}, driver)
    assert fbgemm_build() == build
    assert version_problem() is None


@pytest.mark.parametrize("driver", [True, False])
@pytest.mark.parametrize(("choice", "build"), [("cpu", "fbgemm-gpu-cpu"), ("cuda", "fbgemm-gpu")])
def test_a_choice_decides_before_the_driver(machine, choice, build, driver, tmp_path, monkeypatch):
    machine(TESTED | {build: TESTED_FBGEMM}, driver)
    monkeypatch.setattr(environment.sys, "prefix", str(tmp_path))
    (tmp_path / environment.CHOICE).write_text(choice)
    assert fbgemm_build() == build
    assert version_problem() is None
    machine(TESTED | dict.fromkeys(environment.FBGEMM_BUILDS, TESTED_FBGEMM), driver)
    assert f"does not belong where FBGEMM={choice} was chosen. Cure: " in version_problem()


def test_a_build_number_behind_the_release_is_no_mismatch(machine):
    machine(GOOD | {"torch": f"{TESTED['torch']}+cpu"})
    assert version_problem() is None


def test_another_torch_is_named_with_the_command_that_replaces_it(machine):
    machine(GOOD | {"torch": "2.13.0", "torchvision": "0.28.0"})
    assert version_problem() == (
        "torch must be 2.14.1, got 2.13.0; torchvision must be 0.29.1, got 0.28.0. "
        "Cure: /env/bin/python -m pip install torch==2.14.1 torchvision==0.29.1"
    )


def test_another_torchrec_is_replaced_without_the_fbgemm_it_asks_for(machine):
    machine(GOOD | {"torchrec": "1.8.0"})
    assert version_problem() == (
        "torchrec must be 1.9.2, got 1.8.0. "
        "Cure: /env/bin/python -m pip install --no-deps torchrec==1.9.2"
    )


@pytest.mark.parametrize("both", [True, False])
def test_the_cuda_build_without_a_driver_goes_before_the_cpu_build_comes(machine, both):
    installed = TESTED | {"fbgemm-gpu": TESTED_FBGEMM}
    machine(installed | GOOD if both else installed)
    said = version_problem()
    assert "fbgemm-gpu does not belong where no NVIDIA driver is" in said
    assert said.endswith(
        "Cure: /env/bin/python -m pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu"
        " && /env/bin/python -m pip install --no-deps fbgemm-gpu-cpu==1.9.0"
    )


def test_the_cpu_build_on_a_machine_with_a_gpu_is_replaced(machine):
    machine(GOOD, driver=True)
    said = version_problem()
    assert "fbgemm-gpu must be 1.9.0, got none" in said
    assert "fbgemm-gpu-cpu does not belong where an NVIDIA driver is" in said
    assert said.endswith("pip install --no-deps fbgemm-gpu==1.9.0")


def test_where_nothing_is_installed_the_cure_is_to_install(machine):
    machine({})
    said = version_problem()
    assert "torch must be 2.14.1, got none" in said
    assert said.endswith("Cure: make install")


def test_every_complaint_is_one_line(machine):
    machine({name: "0.1" for name in (*TESTED, *environment.FBGEMM_BUILDS)})
    assert "\n" not in version_problem()


def test_the_releases_tested_together_are_those_of_pyproject():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    pins = dict(re.findall(r'"([\w-]+)(?:\[\w+\])?==([\d.]+)"', text))
    expected = TESTED | {"fbgemm-gpu": TESTED_FBGEMM}
    assert {name: pins.get(name) for name in expected} == expected


def test_packages_that_messages_name_are_those_of_pyproject():
    root = Path(__file__).parents[1]
    source = "".join(path.read_text() for path in (root / "torchrec_mm").rglob("*.py"))
    pattern = r"\b(?:gt-all|efficientnet-|faiss-|pyspark\[)[\w\]-]*[=>]=[\d.,<]+"
    named = set(re.findall(pattern, source))
    assert len(named) == 4
    assert all(f'"{name}"' in (root / "pyproject.toml").read_text() for name in named)
