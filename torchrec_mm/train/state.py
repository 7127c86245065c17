"""Everything that a run would lose if it stopped now, as tensors by checkpoint key.

``model.<name>``, ``optimizer.<parameter>.<state>`` and ``epoch.<sum>``; ``Position`` beside them.
There is no state of random number generators: the order of requests and each step's dropout are
functions of seed, epoch, step and rank. So is the learning rate, of the step.
"""

from dataclasses import dataclass, field

from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import TensorShards, model_shards
from torchrec_mm.train.totals import Totals


@dataclass
class Training:
    """A run in memory; ``totals`` and ``position`` start at zero."""

    distributed: DistributedModel
    position: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        self.totals = Totals(self.distributed.worker.device)

    def shards(self) -> dict[str, TensorShards]:
        """This rank's part of everything; filling it restores the run."""
        sums = {f"epoch.{name}": TensorShards.of(t) for name, t in self.totals.tensors().items()}
        if not self.totals.is_first:
            sums = {key: TensorShards(p.size, p.dtype, ()) for key, p in sums.items()}
        return model_shards(self.distributed.model, self.distributed.optimizer) | sums
