"""The doctor says what works here, or the one command that cures it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apps.doctor import kernels, main
from torchrec_mm import environment
from torchrec_mm.errors import InputError

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
    for words in (*blocks, *seen, "ninja", "train on the CPU", "Adam on tables"):
        assert words in out
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("switch", "compiler", "runs"),
    [("1", "/bin/c++", "compiled on first use: "), ("1", None, "PyTorch versions: ")]
    + [("0", "/bin/c++", "PyTorch versions, as TORCHREC_MM_KERNELS=0 asks: ")],
)
def test_the_kernels_that_run_are_named(monkeypatch, switch, compiler, runs):
    monkeypatch.setenv("TORCHREC_MM_KERNELS", switch)
    monkeypatch.setattr(shutil, "which", lambda *args, **kwargs: compiler)
    assert kernels()["run"].startswith(runs)
    assert "general_search" in kernels()["run"]


@pytest.mark.parametrize(
    "module",
    [
        "raise OSError('libnvidia-ml.so.1: cannot open shared object file')",
        "import os; os.abort()",
    ],
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
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.endswith("Cure: make install\n")


def test_the_doctor_takes_no_arguments():
    with pytest.raises(InputError, match="unknown flag: --fix"):
        main(["--fix"])
