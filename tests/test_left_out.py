"""A test whose component is not on the machine is named as left out, or fails in CI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest

ROOT = Path(__file__).parents[1]


def run_on_a_bare_machine(folder: Path, everything: bool) -> subprocess.CompletedProcess[str]:
    """Two Redis tests, in CI one for GPUs, and a plain one, where no command is on the PATH."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    on_gpu = "@pytest.mark.gpu\ndef test_g(): pass\n" if everything else ""
    (folder / "test_it.py").write_text(
        "import os, pytest\n"
        "@pytest.mark.redis\n@pytest.mark.parametrize('n', [1, 2])\ndef test_r(n): pass\n"
        "def test_plain(): assert os.environ['CUDA_VISIBLE_DEVICES'] == ''\n" + on_gpu
    )
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n", "1", "-c", str(ROOT / "pyproject.toml")),
            str(folder),
        ],
        cwd=folder,
        env=os.environ | {"PATH": str(folder), "TORCHREC_MM_ALL": "1" if everything else "0"},
        capture_output=True,
        text=True,
    )


def test_make_test_names_what_it_left_out_and_passes(tmp_path):
    done = run_on_a_bare_machine(tmp_path, everything=False)
    assert done.returncode == 0
    assert "left out: 2 redis (no redis-server)" in done.stdout
    assert "1 passed, 2 skipped" in done.stdout


@pytest.mark.slow
def test_ci_fails_instead_of_leaving_out_all_but_what_needs_a_gpu(tmp_path):
    done = run_on_a_bare_machine(tmp_path, everything=True)
    assert done.returncode == 1
    assert "redis test, but this machine has no redis-server" in done.stdout
    assert "left out: 1 gpu (no NVIDIA GPU in sight: pytest -m gpu)" in done.stdout
    assert "1 passed, 1 skipped, 2 errors" in done.stdout


@pytest.mark.parametrize(
    ("asked", "seen"), [("gpu", "2,3"), ("", ""), ("not gpu", ""), ("gpu or kill", "")]
)
def test_gpus_are_hidden_from_all_tests_but_those_on_gpus_alone(monkeypatch, asked, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    options = SimpleNamespace(option=SimpleNamespace(markexpr=asked))
    conftest.pytest_configure(options)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen
