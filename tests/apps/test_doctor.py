"""The doctor says what works here, or the one command that cures it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps.doctor import kernels, main
from torchrec_mm import environment
from torchrec_mm.errors import InputError
from torchrec_mm.kernels import build, distinct

ROOT = Path(__file__).parents[2]


def doctor(**extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "apps.doctor"],
        cwd=ROOT,
        env=os.environ | extra,
        capture_output=True,
        text=True,
    )


def test_a_healthy_machine_is_described(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([])
    out = capsys.readouterr().out
    blocks = ("releases:", "devices:", "links:", "limits:", "kernels:", "here:")
    seen = ("torch   ", environment.TESTED["torch"], "fbgemm-gpu", "cores", "gloo", "open files")
    for words in (*blocks, *seen, "compile", "train on the CPU", "Adam on tables"):
        assert words in out
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("cause", "compile", "run"),
    [
        ("", "yes, in ", "C++ versions: "),
        ("CXX", "no: no C++ compiler no-such-compiler: ", "PyTorch versions, more slowly: "),
        ("folder", "no: [Errno 17] File exists: ", "PyTorch versions, more slowly: "),
        ("numbers", "no: wrong numbers from the one in ", "PyTorch versions, more slowly: "),
    ],
)
def test_a_kernel_is_compiled_and_run_before_the_doctor_says_that_it_can_be(
    monkeypatch, tmp_path, cause, compile, run
):
    build.attempt.cache_clear()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    if cause == "CXX":
        monkeypatch.setenv("CXX", "no-such-compiler")
    if cause == "folder":
        (tmp_path / "cache").touch()
    if cause == "numbers":
        monkeypatch.setattr(distinct, "distinct", lambda ids: (ids, ids))
    said = kernels()
    build.attempt.cache_clear()
    assert said["compile"].startswith(compile) and said["run"].startswith(run)
    assert "general_search" in said["run"]
    assert bool(list(tmp_path.glob("cache/*/kernel.so"))) == (cause in ("", "numbers"))


def test_kernels_that_are_switched_off_are_not_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHREC_MM_KERNELS", "0")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (said,) = kernels().values()
    assert said.startswith("PyTorch versions, as TORCHREC_MM_KERNELS=0 asks: ")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "module",
    ["raise OSError('libnvidia-ml.so.1: cannot open shared object file')", "import os; os.abort()"],
)
def test_a_broken_fbgemm_is_one_line_with_its_cure_and_no_traceback(tmp_path, module):
    (tmp_path / "fbgemm_gpu").mkdir()
    (tmp_path / "fbgemm_gpu" / "__init__.py").write_text(module)
    done = doctor(PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: torch, torchrec and fbgemm must load together, got ")
    assert "pip uninstall -y fbgemm-gpu fbgemm-gpu-cpu && " in line
    assert line.endswith(f"pip install --no-deps {environment.fbgemm_build()}==1.9.0")


def test_a_mismatch_is_told_without_importing_anything(tmp_path):
    info = tmp_path / "torch-2.13.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    (tmp_path / "torch.py").write_text("raise SystemExit('imported')")
    done = doctor(PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        "error: torch must be 2.14.1, got 2.13.0. "
        f"Cure: {sys.executable} -m pip install torch==2.14.1\n"
    )


def test_the_doctor_still_speaks_where_nothing_is_installed(tmp_path):
    code = (
        "import sys; sys.path = [p for p in sys.path if 'site-packages' not in p];"
        "from apps.doctor import main, run; sys.exit(run(main, []))"
    )
    words = [sys.executable, "-S", "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.endswith("Cure: make install\n")


def test_the_doctor_takes_no_arguments():
    with pytest.raises(InputError, match="unknown flag: --fix"):
        main(["--fix"])
