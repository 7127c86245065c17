"""Does it work here? Tables, optimizers and groups, tried on each device with a handful of rows.

python -m torchrec_mm.parallel.trial [cpu]

For a process of its own, as the wrong build of a library can take it down. Prints "loaded" when the
libraries are, a JSON line {"trial", "device"} for each trial that it will make, and {"trial",
"device", "problem"} as each has ended; ``cpu`` leaves GPUs alone.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial

import fbgemm_gpu  # noqa: F401, its operators
import torch
import torch.distributed as dist
import torchrec  # noqa: F401, goes with them or does not
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import ComputeDevice, EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)

from torchrec_mm import gpus

RATE = 0.5
TABLES, HOST_TABLES, ADAM, GROUP = "tables", "tables in host memory", "Adam on tables", "group"


def trials(device: torch.device) -> Iterator[tuple[str, Callable[[], None]]]:
    """What a device has to be good for, by name."""
    yield TABLES, partial(learn, device)
    if device.type == "cuda":
        yield HOST_TABLES, partial(learn, device, location=EmbeddingLocation.MANAGED_CACHING)
        yield ADAM, partial(learn, device, optimizer=EmbOptimType.ADAM)
    yield GROUP, partial(sum_up, device)


def learn(
    device: torch.device,
    location: EmbeddingLocation | None = None,
    optimizer: EmbOptimType = EmbOptimType.EXACT_ROWWISE_ADAGRAD,
) -> None:
    """Look two rows of a table up and update them.

    location: of the table; the device's own if None. optimizer: one that goes ``RATE`` far in its
    first step, whatever the gradient.

    Raises:
        ValueError: other rows have moved, or these went elsewhere.
    """
    on_gpu = device.type == "cuda"
    own = EmbeddingLocation.DEVICE if on_gpu else EmbeddingLocation.HOST
    computes = ComputeDevice.CUDA if on_gpu else ComputeDevice.CPU
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(8, 4, location or own, computes)], optimizer=optimizer, learning_rate=RATE, device=device
    )
    (weights,) = tables.split_embedding_weights()
    weights.fill_(1.0)
    ids = torch.tensor([2, 5], device=device)
    tables(ids, torch.tensor([0, 1, 2], device=device)).sum().backward()
    tables.flush()  # what a cache holds
    wanted = torch.ones(8, 4)
    wanted[ids.cpu()] -= RATE
    found = weights.cpu()
    if not torch.allclose(found, wanted, atol=1e-3):
        raise ValueError(f"rows must be {wanted[:, 0].tolist()}, got {found[:, 0].tolist()}")


def sum_up(device: torch.device) -> None:
    """Add up in a group of one, over NCCL on a GPU, gloo on the CPU; ValueError for another sum."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        total = torch.full((4,), 3.0, dtype=torch.bfloat16, device=device)
        dist.all_reduce(total)
        if total.tolist() != [3.0] * 4:
            raise ValueError(f"sum must be 3, got {total.tolist()}")
    finally:
        dist.destroy_process_group()


def say(**values: str | None) -> None:
    print(json.dumps(values), flush=True)


def main(only_cpu: bool) -> None:
    """Try everything; a trial that fails does not end the others."""
    print("loaded", flush=True)
    count = 0 if only_cpu else gpus.count()
    devices = [torch.device("cpu"), *(torch.device("cuda", index) for index in range(count))]
    every = [(device, *trial) for device in devices for trial in trials(device)]
    for device, name, _ in every:
        say(trial=name, device=str(device))
    for device, name, trial in every:
        say(trial=name, device=str(device), problem=problem_with(trial, device))


def problem_with(trial: Callable[[], None], device: torch.device) -> str | None:
    """What goes wrong, in a line; None if nothing does."""
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        trial()
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


if __name__ == "__main__":
    main("cpu" in sys.argv[1:])
