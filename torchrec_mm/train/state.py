"""Everything that a run would lose if it stopped now, as tensors by checkpoint key.

``model.<name>``, ``optimizer.<parameter>.<state>`` and ``epoch.<sum>``; ``Position`` beside them.
There is no state of random number generators: the order of requests and each step's dropout are
functions of seed, epoch, step and rank. So is the learning rate, of the step.
"""

from dataclasses import dataclass, field

from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import Pieces, model_pieces
from torchrec_mm.train.totals import Totals


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
        return training_pieces(self.distributed) | sums


def training_pieces(distributed: DistributedModel) -> dict[str, Pieces]:
    """This rank's part of the model and of all optimizers' state, by checkpoint key.

    The keys are the same under every plan: TorchRec names a table's state otherwise where the
    table is replicated (pytorch/torchrec#2394), and ``parallel.tables`` refuses that.
    """
    state = distributed.optimizer.state_dict()["state"]
    return model_pieces(distributed.model) | {
        f"optimizer.{parameter}.{name}": Pieces.of(tensor)
        for parameter, entries in state.items()
        for name, tensor in entries.items()
    }
