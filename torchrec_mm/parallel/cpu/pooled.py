"""Bags of several ids on CPUs: each row of a table is looked up once, and pooled here.

Shape letters: F features, T tables of them, N distinct rows, E width of the tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.kernels.exchange_ids import Part
from torchrec_mm.kernels.one_id_bags import Ids
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

    def below_each_other(self) -> tuple[Ids, PooledBags]:
        """To look the rows up table after table, (N, E), and how to pool these."""
        counts = torch.tensor([len(rows) for rows in self.rows])
        begins = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        index = [
            places + int(begins[table])
            for places, table in zip(self.places, self.keys.table.tolist(), strict=True)
        ]
        ids = Ids(torch.cat(self.rows), torch.arange(int(begins[-1])), begins)
        return ids, self._pooled(index)

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
        numbers = torch.tensor(self.keys.numbers)
        return Part(torch.cat(self.rows), lengths.flatten(), numbers), self._pooled(index)

    def _pooled(self, index: list[Tensor]) -> PooledBags:
        keys = self.keys
        together = torch.cat(index).long()
        return PooledBags(together, self.lengths, keys.mean, keys.table, len(self.rows))
