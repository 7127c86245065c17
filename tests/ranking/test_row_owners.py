"""Ids get rows of their own and lose them to stronger ids, against a plain-Python oracle."""

import random
from collections import Counter

import pytest
import torch
from torchrec.sparse.jagged_tensor import JaggedTensor

from torchrec_mm.errors import InputError
from torchrec_mm.ranking.eviction import EVICTIONS
from torchrec_mm.ranking.id_hash import MIX, mix
from torchrec_mm.ranking.row_owners import EMPTY, RowOwners

CPU = torch.device("cpu")
ROWS, PARTITIONS = 24, 4
SIZE = ROWS // PARTITIONS


def look_up(owners: RowOwners, *by_feature: list[int]) -> list[int]:
    """Rows of raw ids, as one step."""
    features = {
        str(number): JaggedTensor(
            torch.tensor(ids, dtype=torch.int64), lengths=torch.ones(len(ids)).int()
        )
        for number, ids in enumerate(by_feature)
    }
    return [row for feature in owners(features).values() for row in feature.values().tolist()]


def owners_of(eviction: str = "lfu", interval_steps: int = 1, rows: int = ROWS) -> RowOwners:
    how = {"eviction": eviction, "interval_steps": interval_steps, "device": CPU}
    return RowOwners(rows=rows, partitions=PARTITIONS, **how)


def partition_of(raw_id: int) -> int:
    return mix(torch.tensor(raw_id), MIX).item() % (1 << 64) % PARTITIONS


def ids_of_one_partition(count: int) -> list[int]:
    return [raw_id for raw_id in range(count * 50) if partition_of(raw_id) == 2][:count]


class Oracle:
    """The rule in plain Python: each partition a list of rows, each id a record."""

    def __init__(self, eviction: str) -> None:
        self.eviction = eviction
        self.step = 0
        self.seen: list[tuple[int, set[int]]] = []
        self.rows: list[tuple[int, int, int] | None] = [None] * ROWS  # id, count, last step

    def strength(self, owner: tuple[int, int, int] | None) -> float:
        if owner is None:
            return 0
        _, count, last = owner
        how = {"lfu": count, "lru": last, "distance_lfu": count / (self.step - last + 1)}
        return how[self.eviction]

    def observe(self, ids: list[int]) -> None:
        self.step += 1
        self.seen.append((self.step, set(ids)))

    def flush_evictions(self) -> list[int]:
        """Rows that got another owner."""
        counts = Counter(raw_id for _, ids in self.seen for raw_id in ids)
        last = {raw_id: step for step, ids in self.seen for raw_id in ids}
        self.seen.clear()
        for row, owner in enumerate(self.rows):
            if owner and owner[0] in counts:
                raw_id, count, _ = owner
                self.rows[row] = (raw_id, count + counts.pop(raw_id), last[raw_id])
        newcomers = [(raw_id, count, last[raw_id]) for raw_id, count in sorted(counts.items())]
        changed = []
        for partition in range(PARTITIONS):
            mine = range(partition * SIZE, partition * SIZE + SIZE - 1)
            weak = sorted(mine, key=lambda row: self.strength(self.rows[row]))
            strong = [new for new in newcomers if partition_of(new[0]) == partition]
            strong.sort(key=self.strength, reverse=True)
            for row, new in zip(weak, strong, strict=False):
                if self.strength(new) > self.strength(self.rows[row]):
                    self.rows[row] = new
                    changed.append(row)
        return changed

    def row(self, raw_id: int) -> int:
        for row, owner in enumerate(self.rows):
            if owner and owner[0] == raw_id:
                return row
        return partition_of(raw_id) * SIZE + SIZE - 1


def stream(seed: int, steps: int) -> list[list[int]]:
    """Steps of ids, skewed, repeated, of both signs, some steps empty."""
    draw = random.Random(seed)
    pool = [draw.randrange(-(2**63) + 1, 2**63) for _ in range(60)]
    return [
        [pool[min(int(draw.expovariate(0.07)), 59)] for _ in range(draw.choice([0, 5, 14]))]
        for _ in range(steps)
    ]


@pytest.mark.parametrize("interval_steps", [2, 3])
@pytest.mark.parametrize("eviction", EVICTIONS)
def test_owners_and_evicted_rows_are_the_oracles(eviction, interval_steps):
    owners, oracle = owners_of(eviction, interval_steps), Oracle(eviction)
    changes = 0
    for step, ids in enumerate(stream(seed=interval_steps, steps=60)):
        oracle.observe(ids)
        changed = oracle.flush_evictions() if (step + 1) % interval_steps == 0 else []
        assert look_up(owners, ids) == [oracle.row(raw_id) for raw_id in ids]
        evicted = owners.evict()
        assert sorted(changed) == ([] if evicted is None else evicted.tolist())
        changes += len(changed)
    assert changes > ROWS - PARTITIONS  # rows changed hands, they were not only filled
    assert owners.open_slots().tolist() == [oracle.rows.count(None) - PARTITIONS]


def test_an_id_keeps_its_row_until_it_is_evicted_and_shares_it_with_nobody():
    owners = owners_of()
    held: dict[int, int] = {}
    for ids in stream(seed=5, steps=40):
        rows = dict(zip(ids, look_up(owners, ids), strict=True))
        evicted = owners.evict()
        lost = set() if evicted is None else set(evicted.tolist())
        held = {raw_id: row for raw_id, row in held.items() if row not in lost}
        owned = {i: row for i, row in rows.items() if row % SIZE != SIZE - 1}
        for raw_id, row in owned.items():
            assert held.get(raw_id, row) == row
        held |= owned
        assert len(set(held.values())) == len(held)


@pytest.mark.parametrize("eviction", EVICTIONS)
def test_a_newcomer_takes_the_row_of_the_weakest(eviction):
    owners = owners_of(eviction, interval_steps=2)
    first, *strong, newcomer = ids_of_one_partition(SIZE)
    look_up(owners, [first, *strong])
    others = look_up(owners, strong)
    (row,) = look_up(owners.eval(), [first])
    owners.train()
    assert look_up(owners, [newcomer, *strong]) == [SIZE * 3 - 1, *others]
    assert look_up(owners, [newcomer, *strong]) == [row, *others]
    assert look_up(owners.eval(), [first]) == [SIZE * 3 - 1]


def test_a_newcomer_no_stronger_than_the_owners_gets_no_row():
    owners = owners_of("lfu")
    *old, newcomer = ids_of_one_partition(SIZE)
    look_up(owners, old)
    for _ in range(3):  # lfu: one step at a time, against all the steps of the owners
        assert look_up(owners, [newcomer]) == [SIZE * 3 - 1]


def test_an_id_without_a_row_reads_the_row_that_nobody_owns():
    owners = owners_of(interval_steps=2)
    raw_id, other = ids_of_one_partition(2)
    assert look_up(owners, [raw_id, other, raw_id]) == [3 * SIZE - 1] * 3
    assert SIZE * 2 <= look_up(owners, [raw_id])[0] < 3 * SIZE - 1


def test_evaluation_changes_nothing():
    owners = owners_of()
    look_up(owners, [1, 2, 3])
    owners.evict()
    before = {name: tensor.clone() for name, tensor in owners.state_dict().items()}
    owners.eval()
    for _ in range(3):
        first = look_up(owners, [1, 4, -9])
    owners.flush_evictions()
    assert owners.evict() is None
    assert all(torch.equal(before[name], now) for name, now in owners.state_dict().items())
    assert [row % SIZE == SIZE - 1 for row in first] == [False, True, True]


def test_strength_counts_steps_and_not_occurrences():
    owners = owners_of(interval_steps=2)
    look_up(owners, [7, 7, 7], [7])
    look_up(owners, [7, 8])
    counts = {i: c for i, c in zip(owners.ids.tolist(), owners.counts.tolist(), strict=True) if c}
    assert counts == {7: 2, 8: 1}


def test_shares_of_ranks_are_slices_of_the_whole():
    whole = owners_of(interval_steps=2)
    bounds = [0, 12, 24]
    halves = list(zip(bounds, bounds[1:], strict=False))
    shares = [whole.rebuild_with_output_id_range(half, bounds) for half in halves]
    for ids in stream(seed=9, steps=30):
        rows = look_up(whole, ids)
        for share, (start, end) in zip(shares, halves, strict=True):
            mine = [raw_id for raw_id in ids if start <= partition_of(raw_id) * SIZE < end]
            assert look_up(share, mine) == [row for row in rows if start <= row < end]
        evicted = [part.evict() for part in (whole, *shares)]
        rows, *of_shares = [[] if part is None else part.tolist() for part in evicted]
        assert sum(of_shares, []) == rows  # numbered as in the whole table
    for name in ("ids", "counts", "last_steps"):
        parts = torch.cat([getattr(share, name) for share in shares])
        assert torch.equal(parts, getattr(whole, name))


def test_state_that_is_filled_in_place_is_the_state_that_is_looked_up():
    trained, fresh = owners_of(), owners_of()
    for ids in stream(seed=3, steps=20):
        look_up(trained, ids)
    asked = [raw_id for ids in stream(seed=3, steps=20) for raw_id in ids]
    fresh.eval(), trained.eval()
    assert look_up(fresh, asked) != look_up(trained, asked)
    for name, tensor in fresh.state_dict().items():
        tensor.copy_(trained.state_dict()[name])
    assert look_up(fresh, asked) == look_up(trained, asked)


def test_state_of_other_partitions_is_refused():
    other = RowOwners(rows=ROWS, partitions=3, eviction="lfu", interval_steps=1, device=CPU)
    with pytest.raises(InputError, match="must be 4 as in the checkpoint, got 3"):
        other.load_state_dict(owners_of().state_dict())


def test_the_lowest_number_is_an_id_that_never_gets_a_row():
    owners = owners_of()
    for _ in range(3):
        (row,) = look_up(owners, [EMPTY])
    assert row % SIZE == SIZE - 1
    assert owners.open_slots().tolist() == [ROWS - PARTITIONS]
    assert not owners.evict().any() and not owners.counts.any()  # nor is one kept for it
