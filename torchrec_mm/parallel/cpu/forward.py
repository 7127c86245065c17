"""What collections of tables do on the CPU in the place of TorchRec's forward."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from torchrec_mm.kernels.bag_tables import pool_tables
from torchrec_mm.kernels.one_id_bags import Bags, Tables, one_id_bags
from torchrec_mm.parallel.cpu.exchange import Exchange
from torchrec_mm.parallel.cpu.links import Links
from torchrec_mm.parallel.cpu.pooled import PooledKeys
from torchrec_mm.parallel.cpu.shards import Shards, fits
from torchrec_mm.parallel.cpu.tables import use_one_id_forward
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.strides import equalise_strides
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.parallel.zero_collision import ShardedZeroCollisionTables


def shorten(
    model: nn.Module,
    of_table: Mapping[str, TableSettings],
    worker: Worker,
    learns: bool,
    links: Links | None,
) -> Exchange | None:
    """Let collections whose tables fit look up the short way.

    Weights, state, names and plan stay TorchRec's own; what fits is in ``shards.fits``. Others go
    TorchRec's way, as do tables of raw ids.

    Args:
        model: sharded over all ranks, on the CPU. of_table: settings of each table.
        worker: this rank. learns: whether the model will. links: to others, if there are any.

    Returns:
        What the look-ups of several ranks go through; None on a lone rank, or if nothing fits.
    """
    use_one_id_forward(model)
    short: list[tuple[ShardedEmbeddingBagCollection, Shards]] = []
    for collection in _collections(model):
        if isinstance(collection, ShardedEmbeddingBagCollection):
            if fits(collection, of_table, learns):
                own = Shards.of(collection, worker.world_size)
                if worker.world_size == 1 or _goes_with(own, [other for _, other in short]):
                    short.append((collection, own))
                    continue
        if worker.world_size > 1:
            equalise_strides(collection)
    if links is None:
        for collection, own in short:
            collection.forward = ShortForward(collection, own)
        return None
    if not short:
        return None
    exchange = Exchange([own for _, own in short], links)
    for collection, _ in short:
        collection.forward = exchange.promise
    return exchange


def _goes_with(shards: Shards, others: list[Shards]) -> bool:
    """Whether one exchange can tell features and rows apart."""
    return all(
        shards.tables.width == other.tables.width and not {*shards.numbers} & {*other.numbers}
        for other in others
    )


def _collections(module: nn.Module) -> Iterator[nn.Module]:
    """The sharded modules of tables that a model calls, not those that these hold."""
    if isinstance(module, ShardedZeroCollisionTables | ShardedEmbeddingBagCollection):
        yield module
        return
    for child in module.children():
        yield from _collections(child)


class ShortForward:
    """Takes the place of ``forward`` on a lone rank.

    Bags of one id are copied from their tables, longer ones, and those of several features of one
    table, pooled out of them. What learns otherwise goes to TorchRec's.
    """

    def __init__(self, collection: ShardedEmbeddingBagCollection, shards: Shards) -> None:
        self.torchrec_forward, self.shards = collection.forward, shards
        self.ordered: dict[tuple[str, ...], Tables] = {}
        self.keys: dict[tuple[str, ...], PooledKeys] = {}
        self.each: dict[tuple[str, ...], Tables] = {}

    def __call__(self, features: KeyedJaggedTensor) -> Any:
        names = tuple(name for name in features.keys() if name in self.shards.numbers)
        if len(names) < len(features.keys()):  # the others are of another collection
            features = features.permute([features.keys().index(name) for name in names])
        if names not in self.ordered:
            self.ordered[names] = self.shards.ordered(names)
            self.keys[names] = PooledKeys.of(names, self.shards.numbers, self.shards.means)
            self.each[names] = self._each_table(self.keys[names])
        tables, keys = self.ordered[names], self.keys[names]
        if torch.is_grad_enabled() and not tables.momentum:
            return self.torchrec_forward(features)
        bags = None
        if not keys.shares:
            bags = Bags.of(tables, features.values().long(), features.lengths().int())
        if bags is not None:
            values = one_id_bags(tables, bags)
        else:
            values = pool_tables(self.each[names], keys.of_tables(features))
        return KeyedTensor(list(names), [tables.width] * len(names), values)

    def _each_table(self, keys: PooledKeys) -> Tables:
        """The tables of a batch's features, each once."""
        names = list(self.shards.numbers)
        numbers = list(self.shards.numbers.values())
        return self.shards.ordered([names[numbers.index(number)] for number in keys.numbers])
