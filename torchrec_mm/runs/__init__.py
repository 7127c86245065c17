"""What every run has, whichever phase: its folder, logs, checkpoints, and how it stops.

Knows neither phase: it saves and loads shards of tensors by name. Names of files and keys are read
by older and newer versions alike (``tests/formats``); they may be added to, not renamed. What
``__all__`` names is public: checkpoints for any TorchRec job.

Read first: run_folder.py, then checkpointer.py
"""

from torchrec_mm.runs.checkpoint import load_checkpoint, read_checkpoint
from torchrec_mm.runs.checkpoint_folders import Checkpoint, find_checkpoint, list_checkpoints
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import TensorShards, model_shards

__all__ = [
    "Checkpoint",
    "Checkpointer",
    "Position",
    "TensorShards",
    "find_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "model_shards",
    "read_checkpoint",
]
