"""What `torchx run` can launch of phase two. Imports torchx only.

TorchX runs the text of this file in a module of its own, which finds no file beside it: what
components share is shared per file. Its linter looks for a ``def`` of the component's name in that
text, "missing return annotation or has unknown annotations" if it is not ``-> AppDef``; arguments
and --help are those of the object that the name stands for, so a decorator may put another there.
"""

import os
from typing import Callable, Dict, Optional

from torchx.components import dist
from torchx.specs import AppDef

# apps, in a checkout; torchrec_mm.apps, where this is torchrec_mm.torchx_components.
APPS = __name__.rpartition("torchx_components")[0] + "apps"


def _of_ranks(restarts: str, resumes: bool = False) -> Callable[..., Callable[..., AppDef]]:
    """A component that launches the app of its name under torchrun.

    Args:
        restarts: where all processes start again when one dies.
        resumes: the app is given --resume.
    """

    def component(declared: Callable[..., AppDef]) -> Callable[..., AppDef]:
        app = f"{APPS}.{declared.__name__}"

        def launch(
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
            return dist.ddp(
                *(("--resume", "true") if resumes else ()),
                *app_args,
                m=app,
                name=f"torchrec_mm/{declared.__name__}",
                j=j,
                cpu=cpu,
                gpu=gpu,
                memMB=memMB,
                env=_devices(j, cpu, gpu) | _for_torchrun(max_restarts, log_dir) | (env or {}),
                max_retries=max_retries,
                image=image,
            )

        launch.__name__ = declared.__name__
        launch.__doc__ = f"""{declared.__doc__}

        Args:
            app_args: flags of {app}, written after a bare --{"; --resume is among them" * resumes}
            j: [{{fewest nodes}}:]{{nodes}}x{{processes per node}}, for example 1x2
            cpu: CPU cores per node; each process gets an equal share of threads
            gpu: GPUs per node, one a process; 0 for the CPU, whatever the node has
            memMB: host memory per node in MiB
            env: environment of the processes, for example OMP_NUM_THREADS=4,NCCL_SOCKET_IFNAME=eth0
            max_restarts: how often all processes start again {restarts} when one dies
            max_retries: how often the scheduler starts the whole job again
            log_dir: folder for what each process prints, empty for a temporary one
            image: container image, empty for the local working directory
        """
        return launch

    return component


@_of_ranks("from the last checkpoint", resumes=True)
def train_make(*app_args: str) -> AppDef:
    """Phase two, step one: train MAKE on clicks, from item vectors alone."""


@_of_ranks("from the last checkpoint", resumes=True)
def train_ranker(*app_args: str) -> AppDef:
    """Phase two, step two: train the ranker, its tables sharded over the processes."""


@_of_ranks("from the beginning")
def evaluate(*app_args: str) -> AppDef:
    """Phase two, step three: AUC and GAUC of a run on requests/test."""


@_of_ranks("from the beginning")
def predict(*app_args: str) -> AppDef:
    """Phase two, step four: click probabilities for a folder of requests."""


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
