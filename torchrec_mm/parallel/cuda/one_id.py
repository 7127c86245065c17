"""Single ids on GPUs: TorchRec's EmbeddingCollection in the place of EmbeddingBagCollection.

Of a row-wise table each rank pools every bag of every rank, most of them to zeros that are sent and
added up all the same. A sequence look-up sends each row once, from the rank that has it.

Weights, optimizer state, plan and their names stay those of ``EmbeddingBagCollection``, so that a
checkpoint does not say how it was learned.
"""

from collections.abc import MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchrec.distributed.embedding import (
    EmbeddingCollectionContext,
    ShardedEmbeddingCollection,
)
from torchrec.distributed.embedding_types import KJTList
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.types import ShardingOption
from torchrec.distributed.types import Awaitable, LazyAwaitable, ParameterSharding, ShardingEnv
from torchrec.modules.embedding_configs import EmbeddingConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection, EmbeddingCollection
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor, KeyedTensor

from torchrec_mm.data.stream.bags import pad_bags
from torchrec_mm.data.stream.one_id_tables import OneIdTables

BAGS, SEQUENCES = "embedding_bags.", "embeddings."  # TorchRec's names before a table's


def sends_rows(device: str) -> bool:
    """Whether one-id tables go through EmbeddingCollection: on CPUs there is a shorter way."""
    return device == "cuda"


class OneIdEnumerator(EmbeddingEnumerator):
    """TorchRec's, for which a collection of bags is pooled, whatever a device does with it."""

    def populate_estimates(self, sharding_options: list[ShardingOption]) -> None:
        for option in sharding_options:
            if isinstance(option.module[1], OneIdTables):
                option._is_pooled = not goes_by_rows(option.sharding_type)
        super().populate_estimates(sharding_options)


def goes_by_rows(sharding_type: str) -> bool:
    """Whether EmbeddingCollection has this sharding; parts of rows it would put together again."""
    return sharding_type in ("table_wise", "row_wise")


class ShardedOneIdTables(ShardedEmbeddingCollection):
    """TorchRec's sharded EmbeddingCollection by the names, and with the output, of the other.

    It returns a KeyedTensor, bags without an id as zeros; one such row to a rank without any bag.
    """

    def __init__(
        self,
        tables: OneIdTables,
        params: dict[str, ParameterSharding],
        env: ShardingEnv,
        fused_params: dict[str, Any] | None,
        device: torch.device | None,
        **options: Any,
    ) -> None:
        """As TorchRec's, of ``tables`` on the meta device."""
        super().__init__(_as_sequences(tables), params, env, fused_params, device, **options)
        self._modules["embedding_bags"] = self._modules.pop("embeddings")
        self._register_state_dict_hook(_name_as_bags)
        for _, optimizer in self._optim.optimizers:
            optimizer.params = {
                BAGS + name.removeprefix(SEQUENCES): weight
                for name, weight in optimizer.params.items()
            }

    @staticmethod
    def _pre_load_state_dict_hook(
        self: "ShardedOneIdTables", state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        _rename(state_dict, prefix + BAGS, prefix + SEQUENCES)
        ShardedEmbeddingCollection._pre_load_state_dict_hook(self, state_dict, prefix, *args)
        _rename(state_dict, prefix + SEQUENCES, prefix + BAGS)

    def input_dist(
        self, ctx: EmbeddingCollectionContext, features: KeyedJaggedTensor
    ) -> Awaitable[Awaitable[KJTList]]:
        if features.stride() == 0:  # of a rank that is only kept in step: TorchRec needs a bag
            features = pad_bags(features, 1)
        return super().input_dist(ctx, features)

    def compute_and_output_dist(
        self, ctx: EmbeddingCollectionContext, input: KJTList
    ) -> LazyAwaitable[KeyedTensor]:
        return _Beside(super().compute_and_output_dist(ctx, input), _stride(ctx))

    def output_dist(
        self, ctx: EmbeddingCollectionContext, output: list[Tensor]
    ) -> LazyAwaitable[KeyedTensor]:
        return _Beside(super().output_dist(ctx, output), _stride(ctx))


class _Beside(LazyAwaitable[KeyedTensor]):
    """Rows of each key that are to come, beside each other up to a stride."""

    def __init__(self, rows: LazyAwaitable[dict[str, JaggedTensor]], stride: int) -> None:
        super().__init__()
        self._rows, self._stride = rows, stride

    def _wait_impl(self) -> KeyedTensor:
        found = {name: jagged.values() for name, jagged in self._rows.wait().items()}
        wide = [F.pad(rows, (0, 0, 0, self._stride - len(rows))) for rows in found.values()]
        return KeyedTensor([*found], [rows.shape[1] for rows in wide], torch.cat(wide, dim=1))


def _stride(ctx: EmbeddingCollectionContext) -> int:
    """Bags of each key that this rank asked for."""
    asked = ctx.sharding_contexts[0].features_before_input_dist
    assert asked is not None  # it is while its answer is not here
    return asked.stride()


def _as_sequences(tables: EmbeddingBagCollection) -> EmbeddingCollection:
    """The same tables without pooling; the weights are the same parameters."""
    configs = tables.embedding_bag_configs()
    sequences = EmbeddingCollection(
        device=torch.device("meta"),
        tables=[
            EmbeddingConfig(
                name=config.name,
                feature_names=config.feature_names,
                num_embeddings=config.num_embeddings,
                embedding_dim=config.embedding_dim,
                data_type=config.data_type,
            )
            for config in configs
        ],
    )
    for config in configs:  # where what learns them was said
        sequences.embeddings[config.name].weight = tables.embedding_bags[config.name].weight
    return sequences


def _name_as_bags(
    module: ShardedOneIdTables, state: MutableMapping[str, Any], prefix: str, _: object
) -> None:
    _rename(state, prefix + SEQUENCES, prefix + BAGS)


def _rename(state: MutableMapping[str, Any], before: str, now: str) -> None:
    """Give keys that begin with ``before`` another beginning."""
    for key in [key for key in state if key.startswith(before)]:
        state[now + key.removeprefix(before)] = state.pop(key)
