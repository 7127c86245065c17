"""Bags of several ids on CPUs: pooled out of tables here, or each row asked for once of a rank.

Shape letters: F features, T tables of them, N distinct rows, E width of the tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.kernels.bag_tables import TableBags
from torchrec_mm.kernels.exchange_ids import Part
from torchrec_mm.kernels.pool_bags import PooledBags, distinct_rows


@dataclass(frozen=True)
class PooledKeys:
    """The features of a batch of bags. tables: of all tables, the one of each. means: likewise."""

    tables: tuple[int, ...]
    means: tuple[bool, ...]

    @classmethod
    def of(
        cls, names: Sequence[str], tables: Mapping[str, int], means: Mapping[str, bool]
    ) -> "PooledKeys":
        return cls(tuple(tables[name] for name in names), tuple(means[name] for name in names))

    @property
    def shares(self) -> bool:
        """Whether two features have one table."""
        return len(set(self.tables)) < len(self.tables)

    @cached_property
    def numbers(self) -> list[int]:
        """(T,) which of all tables they are."""
        return list(dict.fromkeys(self.tables))

    @cached_property
    def table(self) -> Tensor:
        """(F,) int32, of these."""
        return torch.tensor([self.numbers.index(table) for table in self.tables]).int()

    @cached_property
    def mean(self) -> Tensor:
        """(F,) int32."""
        return torch.tensor(self.means).int()

    def of_tables(self, bags: KeyedJaggedTensor) -> TableBags:
        """For tables that lie here whole, ``numbers`` of all in this order."""
        lengths = bags.lengths().int().contiguous()
        return TableBags(bags.values().long().contiguous(), lengths, self.mean, self.table)

    def take_apart(self, bags: KeyedJaggedTensor) -> "Distinct":
        """What to look up, and where it belongs."""
        lengths = bags.lengths().int().contiguous()
        of_features = lengths.view(len(self.tables), -1).sum(1)
        ids, count = bags.values().long(), len(self.numbers)
        return Distinct(self, lengths, *distinct_rows(ids, of_features, self.table, count))


@dataclass(frozen=True)
class Distinct:
    """Bags taken apart.

    lengths: as of the bags. rows: T of int64, each row once. places: F of int32, where each value
    of a feature lies among those of its table.
    """

    keys: PooledKeys
    lengths: Tensor
    rows: list[Tensor]
    places: list[Tensor]

    def part(self) -> tuple[Part, PooledBags]:
        """To ask ranks for the rows, as bags of one id, and how to pool what comes back."""
        count = len(self.rows)
        lengths = torch.zeros(count, max(1, *map(len, self.rows)), dtype=torch.int32)
        for of_table, rows in zip(lengths, self.rows, strict=True):
            of_table[: len(rows)] = 1
        index = [
            places * count + table
            for places, table in zip(self.places, self.keys.table.tolist(), strict=True)
        ]
        keys, numbers = self.keys, torch.tensor(self.keys.numbers)
        together = torch.cat(index).long()
        pooled = PooledBags(together, self.lengths, keys.mean, keys.table, count)
        return Part(torch.cat(self.rows), lengths.flatten(), numbers), pooled
