"""Tables that raw ids go into, without a vocabulary: TorchRec's managed collision.

No two ids share a row that one of them owns; how ids get rows and lose them: ``row_owners``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.modules.mc_embedding_modules import ManagedCollisionEmbeddingBagCollection
from torchrec.modules.mc_modules import ManagedCollisionCollection

from torchrec_mm.config import check_fields
from torchrec_mm.data.contract.feature_names import table_name
from torchrec_mm.data.stream.batches import RAW_IDS
from torchrec_mm.errors import InputError
from torchrec_mm.ranking.eviction import EVICTIONS
from torchrec_mm.ranking.row_owners import RowOwners


@dataclass(frozen=True, kw_only=True)
class ZeroCollision:
    """How one table hands out its rows."""

    rows: int
    """Rows of the table, a multiple of partitions; one in each is for ids that own none. Beside its
    weights a row takes 32 bytes: owner, count, last step, and where to find the owner."""
    eviction: str = "distance_lfu"
    """Who loses a row: "lfu" seen in the fewest steps, "lru" not seen for the longest,
    "distance_lfu" the fewest steps over how long ago. Newcomers have only the steps since the last
    eviction to show, and "lfu" never forgets: after a while it lets hardly anyone in."""
    interval_steps: int = 100
    """Training steps from one eviction to the next, counted from the last checkpoint."""
    partitions: int = 16
    """Parts that compete for rows on their own; the number of ranks has to divide it."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x in EVICTIONS, f"one of {', '.join(EVICTIONS)}", "eviction")
        check_fields(self, lambda x: x >= 1, "at least 1", "interval_steps")
        check_fields(self, lambda x: 1 <= x <= 1024, "in [1, 1024]", "partitions")
        check_fields(
            self,
            lambda x: x % self.partitions == 0 and x >= 2 * self.partitions,
            f"a multiple of partitions, {self.partitions}, and at least twice that",
            "rows",
        )


def build_zero_collision_tables(
    tables: Mapping[str, ZeroCollision], embedding_dim: int, device: str = "meta"
) -> ManagedCollisionEmbeddingBagCollection:
    """One table for each entry, with one feature of the same name, as ``build_tables`` does.

    The module takes a KeyedJaggedTensor of raw ids, any int64 but the lowest, and returns
    (KeyedTensor of embeddings, None). A row that gets another owner starts at zero, its optimizer
    state too; a row that has had no owner starts as any other table's.

    Args:
        tables: by feature. embedding_dim: E of all of them.
        device: "meta" takes no memory until a shard is placed; another one for a lone module.
    """
    configs = [
        EmbeddingBagConfig(
            name=table_name(feature),
            feature_names=[feature],
            num_embeddings=table.rows,
            embedding_dim=embedding_dim,
        )
        for feature, table in tables.items()
    ]
    owners = {
        table_name(feature): RowOwners(**vars(table), device=torch.device(device))
        for feature, table in tables.items()
    }
    return ManagedCollisionEmbeddingBagCollection(
        EmbeddingBagCollection(tables=configs, device=torch.device(device)),
        ManagedCollisionCollection(owners, configs),
    )


def check_raw_ids(features: Iterable[str]) -> None:
    """InputError, naming the first, for tables of raw ids of features whose raw ids are lost."""
    for name in features:
        if name not in RAW_IDS:
            raise InputError(
                f"zero_collision must name {' or '.join(RAW_IDS)}, the features whose raw ids an "
                f"encoded data set keeps, got {name}"
            )
