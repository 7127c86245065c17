"""What a rank holds of a collection's tables, and which rank holds which rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor
from torchrec.distributed.batched_embedding_kernel import BatchedFusedEmbeddingBag
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import ParameterSharding
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType

from torchrec_mm.kernels.one_id_bags import Tables
from torchrec_mm.parallel.tables import TableSettings


@dataclass(frozen=True)
class Shards:
    """The T tables of a collection.

    numbers: by feature, which table is its own. means: by feature, whether bags are averaged, else
    they are summed. tables: the rows that lie here, TorchRec's own tensors.
    ends: (T, ranks) int64, where the rows of each rank end; they begin where the rank's before end.
    """

    numbers: Mapping[str, int]
    means: Mapping[str, bool]
    tables: Tables
    ends: Tensor

    @classmethod
    def of(cls, collection: ShardedEmbeddingBagCollection, world_size: int) -> "Shards":
        """Of a collection that ``fits``."""
        configs = collection._embedding_bag_configs
        held = {name: held for name, *held in _held(collection)}
        nothing = [torch.empty(0, configs[0].embedding_dim), [torch.empty(0)], torch.zeros(()), 0.0]
        weights, states, rates, eps = zip(
            *(held.get(config.name, nothing) for config in configs), strict=True
        )
        rows = torch.zeros(len(configs), world_size, dtype=torch.int64)
        for of_table, config in zip(rows, configs, strict=True):
            for shard in _plan(collection, config).sharding_spec.shards:
                of_table[shard.placement.rank()] += shard.shard_sizes[0]
        learns = all(states)
        momentum = [state[0] for state in states] if learns else []
        numbers = {name: n for n, config in enumerate(configs) for name in config.feature_names}
        means = {name: configs[n].pooling == PoolingType.MEAN for name, n in numbers.items()}
        return cls(numbers, means, Tables(weights, momentum, rates, max(eps)), rows.cumsum(1))

    @classmethod
    def joined(cls, parts: "Sequence[Shards]") -> "Shards":
        """Several collections as one."""
        tables = [part.tables for part in parts]
        before = accumulate((len(each.weights) for each in tables), initial=0)
        return cls(
            {
                name: first + number
                for first, part in zip(before, parts, strict=False)
                for name, number in part.numbers.items()
            },
            {name: mean for part in parts for name, mean in part.means.items()},
            Tables(
                [weight for each in tables for weight in each.weights],
                [momentum for each in tables for momentum in each.momentum],
                [rate for each in tables for rate in each.learning_rates],
                max(each.eps for each in tables),
            ),
            torch.cat([part.ends for part in parts]),
        )

    def ordered(self, names: Sequence[str]) -> Tables:
        """The tables of these features; KeyError for one that is not there."""
        places = [self.numbers[name] for name in names]
        own = self.tables
        weights, rates = ([part[i] for i in places] for part in (own.weights, own.learning_rates))
        momentum = [own.momentum[i] for i in places] if own.momentum else []
        return Tables(weights, momentum, rates, own.eps)


def fits(
    collection: ShardedEmbeddingBagCollection, of_table: Mapping[str, TableSettings], learns: bool
) -> bool:
    """Whether all its tables are float32, of one width, and cut by rows or whole.

    And learn by row-wise Adagrad, or by SGD where nothing learns. Ranks agree on it without a word.
    """
    configs = collection._embedding_bag_configs
    optimizers = ("rowwise_adagrad",) if learns else ("rowwise_adagrad", "sgd")
    features = [name for config in configs for name in config.feature_names]
    return (
        len(set(features)) == len(features)
        and len({config.embedding_dim for config in configs}) == 1
        and all(of_table[config.name].dtype == "fp32" for config in configs)
        and all(of_table[config.name].optimizer in optimizers for config in configs)
        and all(_rows_in_order(_plan(collection, config), config) for config in configs)
    )


def _plan(
    collection: ShardedEmbeddingBagCollection, config: EmbeddingBagConfig
) -> ParameterSharding:
    return collection.module_sharding_plan[config.name]


def _rows_in_order(plan: ParameterSharding, config: EmbeddingBagConfig) -> bool:
    """Whether shards hold whole rows, the first rank's first."""
    shards = plan.sharding_spec.shards
    places = [(shard.placement.rank(), shard.shard_offsets[0]) for shard in shards]
    whole = all(shard.shard_sizes[1] == config.embedding_dim for shard in shards)
    return whole and sorted(places) == sorted(places, key=lambda place: place[1])


def _held(
    collection: ShardedEmbeddingBagCollection,
) -> Iterator[tuple[str, Tensor, list[Tensor], Tensor, float]]:
    """Of each table with rows here: name, weights, states, learning rate, epsilon."""
    for lookup in collection._lookups:
        for kernel in lookup.modules():
            if isinstance(kernel, BatchedFusedEmbeddingBag):
                tables = kernel.emb_module
                assert isinstance(tables, SplitTableBatchedEmbeddingBagsCodegen)
                parts = zip(
                    kernel.config.embedding_tables,
                    tables.split_embedding_weights(),
                    tables.split_optimizer_states() or [[]] * len(tables.embedding_specs),
                    strict=True,
                )
                for config, weight, state in parts:
                    rate, eps = tables.learning_rate_tensor, tables.optimizer_args.eps
                    yield config.name, weight, list(state), rate, eps
