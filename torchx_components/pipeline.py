"""Both phases as one job for `torchx run`. Imports torchx only."""

import os
import shlex
from typing import Dict, Optional

from torchx import specs
from torchx.components import dist
from torchx.specs import AppDef, macros

PORT = 29500
# apps, in a checkout; torchrec_mm.apps, where this is torchrec_mm.torchx_components.
APPS = __name__.rpartition("torchx_components")[0] + "apps"


def pipeline(
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
    """Both phases: pack, pretrain, embed_items, encode, train_make, train_ranker, evaluate.

    Args:
        app_args: flags of apps.pipeline, written after a bare --
        j: {nodes}x{processes per node}, for example 1x2
        cpu: CPU cores per node; each process gets an equal share of threads
        gpu: GPUs per node, one a process; 0 for the CPU, whatever the node has
        memMB: host memory per node in MiB
        env: environment of the processes, for example OMP_NUM_THREADS=4,NCCL_SOCKET_IFNAME=eth0
        max_restarts: how often all processes of a stage start again when one dies
        max_retries: how often the scheduler starts the whole job again, at the unfinished stage
        log_dir: folder for what each process prints, empty for a temporary one
        image: container image, empty for the local working directory
    """
    fewest, nodes, processes, _ = dist.parse_nnodes(j)
    if fewest != nodes:
        raise ValueError(f"j must name one number of nodes, got {j}")
    launch = ["--nodes", nodes, "--processes", processes, "--max_restarts", max_restarts]
    command = shlex.join(["python", "-u", "-m", f"{APPS}.pipeline", *map(str, launch)])
    # Not quoted: the shell on each node knows the first one's host.
    first = f"$${{{macros.rank0_env}:=localhost}}:{PORT}"
    logs = {"PET_LOG_DIR": log_dir, "PET_TEE": "3"} if log_dir else {}
    return AppDef(
        name="pipeline",
        roles=[
            specs.Role(
                name="pipeline",
                image=image,
                min_replicas=nodes,
                entrypoint="bash",
                num_replicas=nodes,
                resource=specs.resource(cpu=cpu, gpu=gpu, memMB=memMB),
                args=["-c", f"{command} --rdzv_endpoint {first} {shlex.join(app_args)}"],
                env={"LOGLEVEL": "WARNING"} | _devices(j, cpu, gpu) | logs | (env or {}),
                port_map={"c10d": PORT},
                max_retries=max_retries,
            )
        ],
    )


def _devices(j: str, cpu: int, gpu: int) -> Dict[str, str]:
    """What keeps each process to its share of a node."""
    _, _, processes, _ = dist.parse_nnodes(j)
    if 0 < gpu < processes:
        raise ValueError(f"j must have at most {gpu} processes per node, as gpu says, got {j}")
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cpu // processes))
    hidden = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
    return {"OMP_NUM_THREADS": threads} | hidden
