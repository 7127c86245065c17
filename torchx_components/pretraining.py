"""What `torchx run` can launch of phase one. Imports torchx only."""

import os
from typing import Dict, Optional

from torchx.components import dist
from torchx.specs import AppDef


def pretrain(
    *app_args: str,
    j: str = "1x1",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 8192,
    env: Optional[Dict[str, str]] = None,
    max_restarts: int = 3,
    max_retries: int = 0,
    log_dir: str = "",
    image: str = "",
) -> AppDef:
    """Phase one: train encoders on searches, each process on its share of every batch.

    Args:
        app_args: flags of apps.pretrain, written after a bare --; --resume is among them
        j: [{fewest nodes}:]{nodes}x{processes per node}, for example 1x2
        cpu: CPU cores per node; each process gets an equal share of threads
        gpu: GPUs per node, one a process; 0 for the CPU, whatever the node has
        memMB: host memory per node in MiB
        env: environment of the processes, for example OMP_NUM_THREADS=4,NCCL_SOCKET_IFNAME=eth0
        max_restarts: how often all processes start again from the last checkpoint when one dies
        max_retries: how often the scheduler starts the whole job again
        log_dir: folder for what each process prints, empty for a temporary one
        image: container image, empty for the local working directory
    """
    return dist.ddp(
        *("--resume", "true"),
        *app_args,
        m="apps.pretrain",
        name="torchrec_mm/pretrain",
        j=j,
        cpu=cpu,
        gpu=gpu,
        memMB=memMB,
        env=_devices(j, cpu, gpu) | _for_torchrun(max_restarts, log_dir) | (env or {}),
        max_retries=max_retries,
        image=image,
    )


def embed_items(
    *app_args: str,
    j: str = "1x1",
    cpu: int = 2,
    gpu: int = 0,
    memMB: int = 8192,
    env: Optional[Dict[str, str]] = None,
    max_restarts: int = 3,
    max_retries: int = 0,
    log_dir: str = "",
    image: str = "",
) -> AppDef:
    """Phase one: every item through the encoder, each process a share of the parts.

    Args:
        app_args: flags of apps.embed_items, written after a bare --
        j: [{fewest nodes}:]{nodes}x{processes per node}, for example 1x2
        cpu: CPU cores per node; each process gets an equal share of threads
        gpu: GPUs per node, one a process; 0 for the CPU, whatever the node has
        memMB: host memory per node in MiB
        env: environment of the processes, for example OMP_NUM_THREADS=4,NCCL_SOCKET_IFNAME=eth0
        max_restarts: how often all processes start again at the unfinished parts when one dies
        max_retries: how often the scheduler starts the whole job again
        log_dir: folder for what each process prints, empty for a temporary one
        image: container image, empty for the local working directory
    """
    return dist.ddp(
        *app_args,
        m="apps.embed_items",
        name="torchrec_mm/embed_items",
        j=j,
        cpu=cpu,
        gpu=gpu,
        memMB=memMB,
        env=_devices(j, cpu, gpu) | _for_torchrun(max_restarts, log_dir) | (env or {}),
        max_retries=max_retries,
        image=image,
    )


def _devices(j: str, cpu: int, gpu: int) -> Dict[str, str]:
    """What keeps each process to its share of a node."""
    _, _, processes, _ = dist.parse_nnodes(j)
    if 0 < gpu < processes:
        raise ValueError(f"j must have at most {gpu} processes per node, as gpu says, got {j}")
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cpu // processes))
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    return {"OMP_NUM_THREADS": threads} | hidden


def _for_torchrun(max_restarts: int, log_dir: str) -> Dict[str, str]:
    """Settings of torchrun that it reads from the environment."""
    logs = {"PET_LOG_DIR": log_dir} if log_dir else {}
    # Else processes that start again meet at a store that still names those that died
    # (pytorch/pytorch#135712).
    new_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return {"PET_MAX_RESTARTS": str(max_restarts)} | logs | new_store
