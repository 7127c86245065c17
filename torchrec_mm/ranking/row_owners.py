"""Which raw id owns which row of a table, and who has to give way.

The state lies in the order of the table's rows, and an id can only have rows of its partition,
which its hash picks. So neither depends on the number of ranks, and a checkpoint loads under any
number that divides the partitions. (TorchRec's own MCHManagedCollisionModule ties ids to the
ranks that were there in training, takes no negative ids, and drops ids that a buffer sized by the
first batch cannot hold.)

Shape letters: N rows here (of all partitions, or of one rank's), M ids looked up.
"""

import torch
from torch import Tensor
from torchrec.modules.mc_modules import ManagedCollisionModule
from torchrec.sparse.jagged_tensor import JaggedTensor

from torchrec_mm.errors import InputError
from torchrec_mm.ranking.eviction import contest, strength
from torchrec_mm.ranking.id_hash import MIX, UNMIX, mix

EMPTY = torch.iinfo(torch.int64).min  # owns nothing, and as an id never gets a row


class RowOwners(ManagedCollisionModule):
    """Gives each id a row of its own, and rows of weak ids to stronger newcomers.

    An id without a row reads its partition's last row, which nobody owns. In training, every
    ``interval_steps`` steps, newcomers compete for rows; see ``eviction``. What counts is in how
    many steps, and when, the global batch held an id; how often it occurs within a step, which
    looks up distinct ids only, does not. In evaluation nothing changes.

    ids: (N,) int64 owner of each row, EMPTY where none. counts, last_steps: (N,) int32 of it.
    """

    def __init__(
        self,
        *,
        rows: int,
        partitions: int,
        eviction: str,
        interval_steps: int,
        device: torch.device,
        first_row: int = 0,
        num_rows: int | None = None,
    ) -> None:
        """Own rows [first_row, first_row + num_rows) of ``rows``: whole partitions."""
        size = rows // partitions
        super().__init__(device, [size * bound for bound in range(partitions + 1)])
        self.rows, self.partitions, self.size = rows, partitions, size
        self.eviction, self.interval_steps = eviction, interval_steps
        self.first_row, self.num_rows = first_row, rows if num_rows is None else num_rows
        shape = (self.num_rows,)
        self.register_buffer("ids", torch.full(shape, EMPTY, device=device))
        for name in ("counts", "last_steps"):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int32, device=device))
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._evicted: list[Tensor] = []
        self._index: tuple[Tensor, Tensor] | None = None
        self._indexed = (0, 0)

    def preprocess(self, features: dict[str, JaggedTensor]) -> dict[str, JaggedTensor]:
        """Ids as TorchRec sends them to ranks: hashed, for it deals them out modulo partitions."""
        return {name: _replaced(f, mix(f.values(), MIX)) for name, f in features.items()}

    def profile(self, features: dict[str, JaggedTensor]) -> dict[str, JaggedTensor]:
        """Take note of one step's ids, in training; evict when it is time."""
        if self.training:
            self._current_iter_tensor += 1
            ids = torch.cat([feature.values() for feature in features.values()]).unique()
            self._seen.append((mix(ids, UNMIX), self._current_iter_tensor.expand(len(ids)).int()))
            if len(self._seen) >= self.interval_steps:
                self.flush_evictions()
        return features

    def remap(
        self,
        features: dict[str, JaggedTensor],
        mutate_miss_lengths: bool = True,
        write_weights: Tensor | None = None,
    ) -> dict[str, JaggedTensor]:
        """Hashed ids to rows of the table."""
        return {name: _replaced(f, self._rows(f.values())) for name, f in features.items()}

    def forward(
        self, features: dict[str, JaggedTensor], mutate_miss_lengths: bool = True
    ) -> dict[str, JaggedTensor]:
        """Raw ids to rows of the table."""
        return self.remap(self.profile(self.preprocess(features)))

    @torch.no_grad()
    def flush_evictions(self) -> None:
        """Evict now, by all that was seen since the last time."""
        if not self._seen:
            return
        ids, steps = map(torch.cat, zip(*self._seen, strict=True))
        self._seen.clear()
        ids, steps = ids[ids != EMPTY], steps[ids != EMPTY]
        ids, inverse, counts = ids.unique(return_inverse=True, return_counts=True)
        counts = counts.int()
        last_steps = torch.zeros_like(counts).scatter_reduce(0, inverse, steps, "amax")
        rows, found = self._search(ids)
        self.counts[rows[found]] += counts[found]
        self.last_steps[rows[found]] = last_steps[found]
        self._admit(ids[~found], counts[~found], last_steps[~found])

    def _admit(self, ids: Tensor, counts: Tensor, last_steps: Tensor) -> None:
        """Let newcomers, each with no row yet, compete for all rows but the last of a partition."""
        now = self._current_iter_tensor
        owned = strength(self.eviction, self.counts, self.last_steps, now)
        winners, partition, column = contest(
            owned.view(-1, self.size)[:, :-1],
            strength(self.eviction, counts, last_steps, now),
            self._partition(mix(ids, MIX)),
        )
        rows = partition * self.size + column
        self.ids[rows] = ids[winners]
        self.counts[rows] = counts[winners]
        self.last_steps[rows] = last_steps[winners]
        self._evicted.append(rows + self.first_row)

    def _partition(self, hashed: Tensor) -> Tensor:
        """(M,) which of the partitions here: the hash, as an unsigned number, modulo their number.

        So TorchRec's kernel deals ids out to ranks when a table's ids have no bound.
        """
        wrap = torch.where(hashed < 0, (1 << 64) % self.partitions, 0)
        unsigned = (hashed % self.partitions + wrap) % self.partitions
        return unsigned - self.first_row // self.size

    def _rows(self, hashed: Tensor) -> Tensor:
        """(M,) row in the whole table of each hashed id."""
        rows, found = self._search(mix(hashed, UNMIX))
        fallback = (self._partition(hashed) + 1) * self.size - 1
        return torch.where(found, rows, fallback) + self.first_row

    def _search(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(M,) row here of each raw id, any where it has none, and (M,) whether it has one."""
        version = (self.ids.data_ptr(), self.ids._version)  # a checkpoint fills ids in place
        if self._index is None or self._indexed != version:
            self.validate_state()
            sort = torch.sort(self.ids)
            self._index, self._indexed = (sort.values, sort.indices), version
        owners, rows = self._index
        at = torch.searchsorted(owners, ids).clamp_(max=len(owners) - 1)
        return rows[at], (owners[at] == ids) & (ids != EMPTY)

    def evict(self) -> Tensor | None:
        """Rows of the table whose owner changed since the last call, None of none."""
        if not self._evicted:
            return None
        rows = torch.cat(self._evicted).unique()
        self._evicted.clear()
        return rows

    def output_size(self) -> int:
        """Rows here."""
        return self.num_rows

    def input_size(self) -> int:
        """Zero: any 64-bit number is an id."""
        return 0

    def buckets(self) -> int:
        """Into how many parts TorchRec may cut the table."""
        return self.partitions

    def open_slots(self) -> Tensor:
        """(1,) how many rows here are free."""
        return (self.ids == EMPTY).sum(0, keepdim=True) - self.num_rows // self.size

    def validate_state(self) -> None:
        """Check what a checkpoint brought; InputError if it has other partitions."""
        saved = int((self._output_segments_tensor >= 0).sum()) - 1
        if saved != self.partitions:
            rule = f"partitions must be {saved} as in the checkpoint"
            raise InputError(f"{rule}, got {self.partitions}")

    def rebuild_with_output_id_range(
        self,
        output_id_range: tuple[int, int],
        output_segments: list[int],
        device: torch.device | None = None,
    ) -> "RowOwners":
        """One rank's share: rows [start, end) of the table, whole partitions, still empty."""
        start, end = output_id_range
        return RowOwners(
            rows=self.rows,
            partitions=self.partitions,
            eviction=self.eviction,
            interval_steps=self.interval_steps,
            device=device or self.device,
            first_row=start,
            num_rows=end - start,
        )


def _replaced(feature: JaggedTensor, values: Tensor) -> JaggedTensor:
    weights = feature.weights_or_none()
    return JaggedTensor(values, lengths=feature.lengths(), offsets=None, weights=weights)
