"""Tables of a process that only scores, a byte a number: a quarter of the memory of wide ones.

Shape letters: n rows, E embedding width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

ROW_BYTES = 8  # of each row, its scale and its offset, float32


def pack(values: Tensor) -> Tensor:
    """(n, E) of any float type to (n, E + 8) uint8: each row between its least and largest."""
    packed: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(values.float().contiguous())
    return packed


class QuantisedTables(nn.Module):
    """Looks up as ``LoneTables`` does, but for what rounding costs: half a step of 255 a row.

    weights: (rows, E + 8) uint8 as ``pack`` makes them, by the names of ``EmbeddingBagCollection``.
    """

    def __init__(self, collection: EmbeddingBagCollection, weights: Mapping[str, Tensor]) -> None:
        """Put weights in the place of a collection's.

        Args:
            collection: on any device, the meta device too.
            weights: (rows, E) of any float type, by name of the table; copied.
        """
        super().__init__()
        configs = collection.embedding_bag_configs()
        self.weights = {f"embedding_bags.{c.name}.weight": pack(weights[c.name]) for c in configs}
        self._of_feature = {
            name: (self.weights[f"embedding_bags.{c.name}.weight"], c.pooling == PoolingType.MEAN)
            for c in configs
            for name in c.feature_names
        }

    @torch.no_grad()
    def forward(self, features: KeyedJaggedTensor) -> KeyedTensor:
        """Embeddings as of ``EmbeddingBagCollection``; IndexError for an id outside its table."""
        bags = features.to_dict()
        names = [name for name in features.keys() if name in self._of_feature]
        pooled = [self._pool(name, bags[name].values(), bags[name].lengths()) for name in names]
        widths = [values.shape[1] for values in pooled]
        return KeyedTensor(names, widths, torch.cat(pooled, 1))

    def _pool(self, name: str, ids: Tensor, lengths: Tensor) -> Tensor:
        table, is_mean = self._of_feature[name]
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(table):
            raise IndexError(f"{name} must be rows below {len(table)}, got {int(ids.max())}")
        ends = torch.cat([lengths.new_zeros(1, dtype=torch.int64), lengths.long().cumsum(0)])
        pooled: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
            table, ids.long(), ends, False, 0, False, None, None, True
        )
        return pooled / lengths.clamp(min=1).unsqueeze(1) if is_mean else pooled
