"""What the doctor tries on this host's GPUs."""

import pytest

from torchrec_mm import gpus
from torchrec_mm.trials import groups, problems_of, training, tried

pytestmark = pytest.mark.gpu


def test_every_gpu_here_learns_and_sums_up():
    problems = problems_of(tried())
    assert training(problems) == {
        "train on the CPU": "yes",
        "train on GPUs": f"yes, {gpus.count()}",
        "tables in host memory": "yes",
        "Adam on tables": "yes",
        "fp16/bf16 between ranks": "yes",
    }
    assert groups(problems) == {"gloo": "yes", "NCCL": "yes"}
