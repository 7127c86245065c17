"""Checkpoints that come while a server serves: copies of a run's last, a little changed."""

import shutil
from pathlib import Path

import torch

from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import CHECKPOINTS
from torchrec_mm.runs.tensor_shards import TensorShards

CHANGE = 1e-3  # of each parameter, relative


def write_changed(run_dir: Path, aside: Path, count: int) -> None:
    """Write ``count`` whole checkpoints below ``aside``, of steps after the run's last.

    In a process of its own: joins a group.
    """
    last = find_checkpoint(run_dir / CHECKPOINTS, "latest")
    tensors = read_checkpoint(last.folder, "")
    with process_group(), Checkpointer(aside, keep=count) as checkpointer:
        for number in range(1, count + 1):
            for key, tensor in tensors.items():
                if key.startswith("model.") and tensor.is_floating_point():
                    tensor.mul_(1 + CHANGE * torch.randn(()))
            shards = {key: TensorShards.of(tensor) for key, tensor in tensors.items()}
            checkpointer.save(shards, Position(step=last.position.step + number))


def put_next(aside: Path, run_dir: Path) -> str:
    """Have a run's folder hold the first of them, in one step, and drop the run's oldest.

    The name of it.
    """
    made = min(path for path in aside.iterdir() if path.name.startswith("step-"))
    there = sorted((run_dir / CHECKPOINTS).glob("step-*"))
    made.rename(run_dir / CHECKPOINTS / made.name)
    for old in there[:-1]:
        shutil.rmtree(old)
    return made.name
