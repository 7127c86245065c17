"""What a batch's tables returned, handed out to requests, item slots and candidates.

Shape letters: R requests, I impressions, S item slots, N places, E width of a table, W of all
features' tables, Q features of impressions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.kernels.gather_columns import gather_columns
from torchrec_mm.ranking.spec import RankerSpec


@dataclass(frozen=True)
class Lookups:
    """Each distinct row that a batch needs, once.

    sources: (n, W) embeddings of what the ranker's collections of tables hold each, tables beside
    each other in the order that their sharding gives. columns: by feature, the source that its
    embeddings lie in and where they begin there.
    """

    batch: RequestBatch
    spec: RankerSpec
    sources: tuple[Tensor, ...]
    columns: dict[str, tuple[int, int]]

    @classmethod
    def of(
        cls, batch: RequestBatch, spec: RankerSpec, embeddings: Sequence[KeyedTensor]
    ) -> "Lookups":
        """Out of what the collections of tables return."""
        names = tuple(tuple(tables.keys()) for tables in embeddings)
        columns = columns_of(names, spec.embedding_dim)
        return cls(batch, spec, tuple(tables.values() for tables in embeddings), columns)

    def requests(self) -> Tensor:
        """(R, F * E) embeddings of user and context."""
        return torch.cat(self.of_requests(), dim=1)

    def of_requests(self) -> tuple[Tensor, ...]:
        """The same in parts side by side: row r of a source is request r's."""
        columns, count = (
            [self.columns[n] for n in self.spec.tables.request],
            self.batch.rows.shape[0],
        )
        runs = runs_of(tuple(columns), self.spec.embedding_dim)
        if len(runs) > len(self.sources):  # each would have a gradient as wide as its source
            index = torch.arange(count, dtype=torch.int32, device=self.batch.rows.device)
            index = index.expand(len(columns), -1)
            return (gather_columns(self.sources, columns, index, self.spec.embedding_dim),)
        return tuple(self._columns(source, count, start, end) for source, start, end in runs)

    def _columns(self, source: int, count: int, start: int, end: int) -> Tensor:
        """Of the first rows of a source; all of it as it is, for a slice has a gradient to copy."""
        whole = self.sources[source]
        if (count, start, end) == (whole.shape[0], 0, whole.shape[1]):
            return whole
        return whole[:count, start:end]

    def items(self, tables: Sequence[str], whose: slice = slice(None)) -> Tensor:
        """(N, F * E) embeddings in some of the item tables, in the spec's order.

        ``whose``: of all slots and, after them, the items of all impressions; see ``slots``.
        """
        order = list(self.spec.tables.item)
        chosen = [place for place, name in enumerate(order) if name in tables]
        columns = [self.columns[order[place]] for place in chosen]
        index = self.batch.item_index[:, whose]
        if len(chosen) < len(order):
            # Not by a list of places: a GPU would wait for its copy.
            index = torch.stack([index[place] for place in chosen])
        return gather_columns(self.sources, columns, index, self.spec.embedding_dim)

    def of_impressions(self) -> Tensor | None:
        """(I, Q * E) embeddings of the impressions' own features, None without any."""
        index = self.batch.impression_index
        if index is None:
            return None
        columns = [self.columns[name] for name in self.spec.tables.impression]
        return gather_columns(self.sources, columns, index, self.spec.embedding_dim)

    @property
    def slots(self) -> slice:
        """The places of the item slots; those of impressions follow."""
        return slice(0, self.batch.item_index.shape[1] - self.batch.candidates.shape[0])

    @property
    def impressions(self) -> slice:
        """The places of impressions."""
        return slice(self.slots.stop, None)

    def attribute(self, name: str) -> Tensor:
        """(m, E) embeddings of a behaviour attribute, for ``behaviour_attributes``."""
        source, start = self.columns[name]
        return self.sources[source][:, start : start + self.spec.embedding_dim]


@cache
def columns_of(sources: tuple[tuple[str, ...], ...], width: int) -> dict[str, tuple[int, int]]:
    """Where the embeddings of each feature lie: the source, and the column that they begin at.

    ``sources``: names of features in the order of their columns, each ``width`` wide.
    """
    return {
        name: (source, place * width)
        for source, names in enumerate(sources)
        for place, name in enumerate(names)
    }


@cache
def runs_of(columns: tuple[tuple[int, int], ...], width: int) -> list[tuple[int, int, int]]:
    """Columns of features that follow each other in one source, as one: source, start and end.

    ``columns``: where each feature's ``width`` columns begin, as ``columns_of`` says.
    """
    runs: list[tuple[int, int, int]] = []
    for source, start in columns:
        if runs and runs[-1][0] == source and runs[-1][2] == start:
            runs[-1] = (source, runs[-1][1], start + width)
        else:
            runs.append((source, start, start + width))
    return runs
