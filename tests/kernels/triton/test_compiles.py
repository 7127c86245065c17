"""Triton's compiler and ptxas accept every kernel, for a GPU that is not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchrec_mm.kernels.triton import bank_softmax

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_every_kernel_has_code_for_an_h100_and_fits_into_its_shared_memory(tmp_path):
    told = {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.triton.compiles", "90"],
        env=os.environ | told,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    of_attention = ["_forward", "_backward", "_mean", "_mean_backward"]
    assert done.stdout.split() == ["_kernel", *of_attention, "_compare", "_pick"]


def test_vectors_of_512_numbers_fit_into_any_supported_gpu_and_1024_into_an_a100():
    assert bank_softmax.shared_bytes(512) <= 99 * 1024  # of an L4
    assert 99 * 1024 < bank_softmax.shared_bytes(768) <= 163 * 1024
