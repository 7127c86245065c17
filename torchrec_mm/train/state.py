"""Everything that a run would lose if it stopped now, as tensors by checkpoint key.

``model.<name>``, ``optimizer.<parameter>.<state>`` and ``epoch.<sum>``; ``Position`` beside them.
There is no state of random number generators: the order of requests and each step's dropout are
functions of seed, epoch, step and rank. So is the learning rate, of the step.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.train.pieces import Pieces
from torchrec_mm.train.totals import Totals

ROW_WISE = "momentum1"  # the fused kernels' name for Adagrad's sum of squares


@dataclass(frozen=True)
class Position:
    """How far training has come.

    step: since the run began. epoch: the one that goes on, from 0, so as many are finished.
    requests_done: requests of it that were learned from, the same for any number of ranks.
    """

    step: int = 0
    epoch: int = 0
    requests_done: int = 0


@dataclass
class Training:
    """A run in memory; ``totals`` and ``position`` start at zero."""

    distributed: DistributedModel
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        self.totals = Totals(self.distributed.worker.device)

    def pieces(self) -> dict[str, Pieces]:
        """This rank's part of everything; filling it restores the run."""
        sums = {f"epoch.{name}": Pieces.of(t) for name, t in self.totals.tensors().items()}
        if not self.totals.is_first:
            sums = {key: Pieces(p.size, p.dtype, ()) for key, p in sums.items()}
        return model_pieces(self.distributed) | optimizer_pieces(self.distributed) | sums


def model_pieces(distributed: DistributedModel) -> dict[str, Pieces]:
    """This rank's part of the model, by checkpoint key."""
    state = distributed.model.state_dict()
    return {f"model.{name}": Pieces.of(tensor) for name, tensor in state.items()}


def optimizer_pieces(distributed: DistributedModel) -> dict[str, Pieces]:
    """This rank's part of all optimizers' state, under names that no sharding plan changes.

    TorchRec names a table's state after its kernel: ``<table>.momentum1`` where the table is
    sharded, ``sum`` where it is replicated. Row-wise sums are (rows, column shards) here; TorchRec
    lays the column shards of a table out one after another.
    """
    model = distributed.model.state_dict()
    pieces = {}
    for parameter, state in distributed.optimizer.state_dict()["state"].items():
        for name, tensor in _canonical(parameter, state):
            piece = Pieces.of(tensor)
            if name == ROW_WISE:
                piece = _by_column_shard(piece, model[parameter].size(0))
            pieces[f"optimizer.{parameter}.{name}"] = piece
    return pieces


def _canonical(parameter: str, state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """State by the fused kernels' names, without the table's name in front."""
    table = parameter.split(".")[-2] if "." in parameter else ""
    for name, tensor in state.items():
        name = name.removeprefix(f"{table}.")
        if "sum" not in state:
            yield name, tensor
        elif name == "sum":
            yield ROW_WISE, tensor
        # Adagrad's "step" counts for its decay of the learning rate alone, which is 0 here.


def _by_column_shard(pieces: Pieces, rows: int) -> Pieces:
    """(rows * column shards,) or (rows, 1) as (rows, column shards); other shapes as they are."""
    if len(pieces.size) != 1 and pieces.size != (rows, 1):
        return pieces
    parts = tuple(
        ((offsets[0] % rows, offsets[0] // rows), tensor.view(-1, 1))
        for offsets, tensor in pieces.parts
    )
    return Pieces(torch.Size([rows, pieces.size[0] // rows]), pieces.dtype, parts)
