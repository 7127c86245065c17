"""The ranker: what TorchRec shards, and what it replicates."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchrec.modules.embedding_configs import EmbeddingBagConfig, PoolingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.contract.feature_names import table_name
from torchrec_mm.data.stream.batches import ITEM_ID, USER_ID, RequestBatch
from torchrec_mm.data.stream.one_id_tables import OneIdTables
from torchrec_mm.ranking.effects import EFFECTS, users_of
from torchrec_mm.ranking.network import RankingNetwork
from torchrec_mm.ranking.outputs import RankingOutputs
from torchrec_mm.ranking.spec import RankerSpec
from torchrec_mm.ranking.zero_collision import build_zero_collision_tables


class Ranker(nn.Module):
    """ID tables, then the network.

    Two EmbeddingBagCollections because their batches have two strides: of item ids a batch holds
    thousands, of requests and of distinct attributes far fewer. Multi-hot features are averaged in
    a third, which has the tables of several features too, and summed in a fourth: of one collection
    with both, TorchRec's row-wise tables would average all. Tables of raw ids are a fifth, as
    TorchRec has another module for them. One that would be empty is None. Effects of users are a
    sixth, of a width of their own; it is looked up to score, and not while the network learns what
    they are fitted to. ``learns_beside_effects``: they are fitted, and the network learns on.
    """

    def __init__(self, spec: RankerSpec) -> None:
        super().__init__()
        self.learns_beside_effects = False
        tables = {n: rows for n, rows in spec.tables.all.items() if n not in spec.zero_collision}
        of_bags = {*spec.bags, *spec.shared}
        bags = {name: tables.pop(name) for name in [*tables] if name in of_bags}
        is_summed = {spec.shared.get(n, n) for n, bag in spec.bags.items() if bag.pooling == "sum"}
        summed = {n: bags.pop(n) for n in [*bags] if spec.shared.get(n, n) in is_summed}
        item_ids = {ITEM_ID: tables.pop(ITEM_ID)} if ITEM_ID in tables else {}
        width, raw_ids = spec.embedding_dim, spec.zero_collision
        self.item_id_tables = build_one_id_tables(item_ids, width) if item_ids else None
        self.feature_tables = build_one_id_tables(tables, width) if tables else None
        averaging = dict.fromkeys(bags, "mean")
        self.bag_tables = build_tables(bags, width, averaging, spec.shared) if bags else None
        self.summed_tables = build_tables(summed, width, shared=spec.shared) if summed else None
        of_raw_ids = build_zero_collision_tables(raw_ids, width) if raw_ids else None
        self.zero_collision_tables = of_raw_ids
        effects = {EFFECTS: spec.tables.request[USER_ID]} if spec.effects else {}
        self.effect_tables = build_one_id_tables(effects, spec.effects) if effects else None
        self.network = RankingNetwork(spec)

    def forward(self, batch: RequestBatch) -> tuple[Tensor, RankingOutputs]:
        """Loss and outputs of one batch; TorchRec's pipeline traces the look-ups from here."""
        embeddings = []
        if self.item_id_tables is not None:
            embeddings.append(self.item_id_tables(batch.item_ids))
        if self.feature_tables is not None:
            embeddings.append(self.feature_tables(batch.features))
        if self.bag_tables is not None:
            embeddings.append(self.bag_tables(batch.bags))
        if self.summed_tables is not None:
            embeddings.append(self.summed_tables(batch.bags))
        if self.zero_collision_tables is not None:
            embeddings.append(self.zero_collision_tables(batch.raw_ids)[0])
        if self.effect_tables is None or (self.training and not self.learns_beside_effects):
            return self.network(batch, *embeddings)
        return self.network(batch, *embeddings, effects=self.effect_tables(users_of(batch)))


class LookedUp(NamedTuple):
    """What a ranker's tables give its network: of each collection, and users' effects or None."""

    embeddings: tuple[KeyedTensor, ...]
    effects: KeyedTensor | None


@torch.no_grad()
def looked_up(ranker: Ranker, batch: RequestBatch) -> LookedUp:
    """The look-ups of a batch, and nothing else; the batch may lack what the network goes by."""
    found: list[LookedUp] = []

    def watch(network: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        found.append(LookedUp(given[1:], named.get("effects")))
        raise _Seen

    hook = ranker.network.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        with suppress(_Seen):
            ranker(batch)
    finally:
        hook.remove()
    return found[0]


class _Seen(Exception):
    """What the network is given has been seen: it need not run."""


def build_one_id_tables(rows: Mapping[str, int], embedding_dim: int) -> OneIdTables:
    """``build_tables`` of features that have one id in each bag."""
    of_bags = build_tables(rows, embedding_dim)
    return OneIdTables(device=torch.device("meta"), tables=of_bags.embedding_bag_configs())


def build_tables(
    rows: Mapping[str, int],
    embedding_dim: int,
    pooling: Mapping[str, str] = {},
    shared: Mapping[str, str] = {},
) -> EmbeddingBagCollection:
    """One table for each entry of ``rows``, with one feature of the same name, of bags.

    On the meta device: no memory until a shard of it is placed.

    Args:
        rows: by feature. embedding_dim: of all tables.
        pooling: of bags of more than one id, by feature: "mean" or "sum".
        shared: tables by name of the features that have one with others, of as many rows.
    """
    features: dict[str, list[str]] = {}
    pooled = {shared.get(n, n): PoolingType[how.upper()] for n, how in pooling.items()}
    for feature in rows:
        features.setdefault(shared.get(feature, feature), []).append(feature)
    return EmbeddingBagCollection(
        device=torch.device("meta"),
        tables=[
            EmbeddingBagConfig(
                name=table_name(table),
                feature_names=names,
                num_embeddings=rows[names[0]],
                embedding_dim=embedding_dim,
                pooling=pooled.get(table, PoolingType.SUM),
            )
            for table, names in features.items()
        ],
    )
