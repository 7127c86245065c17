"""What `torchx run` can launch of phase one. Imports torchx only."""

from torchx.components import dist
from torchx.specs import AppDef


def pretrain(
    *app_args: str, j: str = "1x1", cpu: int = 2, gpu: int = 0, memMB: int = 8192, image: str = ""
) -> AppDef:
    """Phase one: train encoders on searches (apps/pretrain.py), one process a share of each batch.

    Args:
        app_args: flags of apps.pretrain, written after a bare --
        j: {nodes}x{processes per node}, for example 1x2
        cpu: CPU cores per node
        gpu: GPUs per node, 0 for gloo on CPU
        memMB: host memory per node in MiB
        image: container image, empty for the local working directory
    """
    return dist.ddp(
        *app_args,
        m="apps.pretrain",
        j=j,
        cpu=cpu,
        gpu=gpu,
        memMB=memMB,
        image=image,
        name="torchrec_mm/pretrain",
    )
