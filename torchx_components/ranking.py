"""What `torchx run` can launch of phase two. Imports torchx only."""

from torchx.components import dist
from torchx.specs import AppDef


def train_ranker(
    *app_args: str, j: str = "1x1", cpu: int = 2, gpu: int = 0, memMB: int = 8192, image: str = ""
) -> AppDef:
    """Phase two: train the ranker (apps/train_ranker.py), tables sharded over the processes.

    Args:
        app_args: flags of apps.train_ranker, written after a bare --
        j: {nodes}x{processes per node}, for example 1x2
        cpu: CPU cores per node
        gpu: GPUs per node, 0 for gloo on CPU
        memMB: host memory per node in MiB
        image: container image, empty for the local working directory
    """
    return dist.ddp(
        *app_args,
        m="apps.train_ranker",
        j=j,
        cpu=cpu,
        gpu=gpu,
        memMB=memMB,
        image=image,
        name="torchrec_mm/train_ranker",
    )
