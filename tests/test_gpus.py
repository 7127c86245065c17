"""What stands between ranks and GPUs is one line with a cure; the machines are made up."""

import ctypes
import importlib.machinery
import json
import os

import pytest

from torchrec_mm import environment, gpus


class Driver:
    """libcuda.so.1: what cuInit answers, and the CUDA that it is for."""

    def __init__(self, status: int, version: int) -> None:
        self.status, self.version = status, version

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDriverGetVersion(self, version) -> int:
        version._obj.value = self.version
        return 0


@pytest.fixture
def host(monkeypatch):
    """A host with such a driver, None for none, and perhaps a device file."""

    def build(driver: Driver | None, device_file: bool = True) -> None:
        def load(name):
            if driver is None or name != "libcuda.so.1":
                raise OSError(f"{name}: cannot open shared object file")
            return driver

        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(ctypes, "CDLL", load)
        monkeypatch.setattr(os.path, "exists", lambda path: device_file)

    return build


def test_a_driver_that_is_too_old_for_torch_is_named_with_what_it_is_for(host):
    host(Driver(0, 12040))
    assert gpus.driver_problem() == (
        f"NVIDIA driver must be 580 or newer for torch {environment.TESTED['torch']}, got one for "
        "CUDA 12.4. Cure: a newer driver; or CUDA_VISIBLE_DEVICES= to train on the CPU"
    )


def test_a_driver_that_does_not_start_is_named_with_its_error(host):
    host(Driver(803, 13000))
    assert "got one for CUDA 13.0 that ends with error 803. Cure" in gpus.driver_problem()


@pytest.mark.parametrize(
    ("driver", "device_file"),
    [
        (None, True),  # no library
        (Driver(100, 13000), True),  # a batch system allotted none to this job
        (Driver(34, 13000), True),  # a stub to link with
        (Driver(999, 13000), False),  # the library in a container without the device
    ],
)
def test_a_host_without_a_gpu_for_this_process_is_a_cpu_host(host, driver, device_file):
    host(driver, device_file)
    assert gpus.driver_problem() is None


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_gpus_that_are_hidden_are_nobodys_problem(host, monkeypatch, value):
    host(Driver(0, 12040))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert gpus.are_hidden() and gpus.driver_problem() is None


@pytest.mark.parametrize(
    ("capability", "has_code"),
    [
        *(((8, minor), True) for minor in (0, 6, 9)),
        *(((9, 0), True), ((10, 0), True), ((10, 3), True)),
        *(((7, 0), False), ((7, 5), False), ((12, 0), False), ((11, 0), False)),
    ],
)
def test_a_capability_without_code_in_fbgemm_is_named_with_those_that_have(capability, has_code):
    said = gpus.capability_problem(capability)
    assert (said is None) == has_code
    if said:
        assert f"got {capability[0]}.{capability[1]}. Cure: other GPUs; or CUDA_VISIBLE_D" in said
        assert "has code for, 8.0, 9.0, 10.0 or a later one" in said and "\n" not in said


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder fbgemm_gpu/ of some build, which must not be imported."""

    def write(variant: str | None) -> None:
        package = tmp_path / "fbgemm_gpu"
        (package / "docs").mkdir(parents=True)
        (package / "__init__.py").write_text("raise AssertionError('imported')")
        if variant:
            described = {"version": "1.9.0", "target": "default", "variant": variant}
            (package / "docs" / "target.default.json.py").write_text(json.dumps(described))
        spec = importlib.machinery.PathFinder.find_spec("fbgemm_gpu", [str(tmp_path)])
        monkeypatch.setattr(gpus, "find_spec", lambda name: spec)

    return write


def test_the_cpu_build_is_named_with_what_brings_the_other(installed, monkeypatch):
    monkeypatch.setattr(environment.sys, "executable", "/env/bin/python")
    installed("cpu")
    assert gpus.build_problem() == (
        "fbgemm must be fbgemm-gpu where ranks take GPUs, got fbgemm-gpu-cpu, which is what an "
        "install without an NVIDIA driver brings. Cure: make install FBGEMM=cuda, outside of .venv "
        "/env/bin/python -m pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu && "
        "/env/bin/python -m pip install --no-deps fbgemm-gpu==1.9.0; "
        "or CUDA_VISIBLE_DEVICES= to train on the CPU"
    )


@pytest.mark.parametrize("variant", ["cuda", "rocm", None])
def test_any_other_build_is_left_to_itself(installed, variant):
    installed(variant)
    assert gpus.build_problem() is None


def test_the_build_that_is_installed_here_is_read_as_it_calls_itself():
    import fbgemm_gpu

    assert (gpus.build_problem() is not None) == (fbgemm_gpu.__variant__ == "cpu")


@pytest.mark.parametrize(
    ("named", "total", "each"),
    [
        (None, 2, ["0", "1"]),
        (None, 0, []),
        ("NoDevFiles", 0, []),
        ("5,3", 2, ["5", "3"]),
        ("GPU-b,GPU-a,none", 2, ["GPU-b", "GPU-a"]),  # CUDA reads no further than that
    ],
)
def test_each_gpu_in_sight_has_the_name_that_shows_it_alone(monkeypatch, named, total, each):
    monkeypatch.setattr(gpus, "count", lambda: total)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert gpus.in_sight() == each
