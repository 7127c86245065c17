"""Tables of a process that has no group: what a scorer holds of a checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from torchrec_mm.kernels.one_id_bags import Tables
from torchrec_mm.parallel.cpu.forward import ShortForward
from torchrec_mm.parallel.cpu.shards import Shards


class LoneTables(nn.Module):
    """Looks up as the sharded collection does on a CPU, by the same kernels; it does not learn.

    weights: what it looks up in, (rows, E) float32, by the names of ``EmbeddingBagCollection``.
    """

    def __init__(self, collection: EmbeddingBagCollection, weights: Mapping[str, Tensor]) -> None:
        """Put weights in the place of a collection's.

        Args:
            collection: on any device, the meta device too; tables of one width.
            weights: (rows, E) of any float type, by name of the table, not copied if float32.
        """
        super().__init__()
        configs = collection.embedding_bag_configs()
        numbers = {name: n for n, config in enumerate(configs) for name in config.feature_names}
        means = {name: configs[n].pooling == PoolingType.MEAN for name, n in numbers.items()}
        tables = [weights[config.name].float().contiguous() for config in configs]
        names = (f"embedding_bags.{config.name}.weight" for config in configs)
        self.weights = dict(zip(names, tables, strict=True))  # a write to them is seen at once
        rates = [torch.zeros(())] * len(tables)
        rows = torch.tensor([[len(table)] for table in tables])
        shards = Shards(numbers, means, Tables(tables, [], rates, 0.0), rows)
        self._look_up = ShortForward(collection, shards)

    @torch.no_grad()
    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """Embeddings as of ``EmbeddingBagCollection``; IndexError for an id outside its table."""
        found: KeyedTensor = self._look_up(features)
        return found
