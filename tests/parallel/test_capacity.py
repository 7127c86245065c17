"""What fits, and the smallest change that makes it fit."""

from dataclasses import replace
from functools import partial

import pytest

from torchrec_mm.parallel.capacity import (
    Workload,
    bytes_of_node,
    changes_that_fit,
    fewest_ranks,
    memory_of_ranks,
)
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.planning import DoesNotFit, constraints_of, table_configs
from torchrec_mm.parallel.tables import TableSettings, settings_by_table
from torchrec_mm.parallel.topology import GIB, Machines
from torchrec_mm.ranking.ranker import build_tables

RESERVE = 0.15  # of each rank's memory, whatever the device
TWO_ON_CPU = Machines("cpu", world_size=2, devices_per_node=2, device_bytes=0, host_bytes=24 * GIB)


@pytest.fixture(autouse=True)
def quiet():
    with suppress_library_warnings():
        yield


def workload(rows: dict[str, int], width: int = 64, **settings) -> Workload:
    """Tables with ``settings`` for item_id, and buffers too small to matter."""
    build = partial(build_tables, rows, width)
    features = {config.name: config.feature_names for config in table_configs(build())}
    tables = settings_by_table({"item_id": TableSettings(**settings)}, features)
    return Workload(build=build, tables=tables, batch_ids=64)


def gpus(world_size: int, gib: float = 79.0) -> Machines:
    per_node = min(8, world_size)
    return Machines(
        "cuda",
        world_size=world_size,
        devices_per_node=per_node,
        device_bytes=int(gib * GIB),
        host_bytes=per_node * 128 * GIB,
    )


def test_as_many_ranks_as_the_bytes_call_for():
    rows, row_bytes = 1_000_000_000, 64 * 4 + 4
    free = 79 * GIB * (1 - RESERVE)
    needed = -(-rows * row_bytes // int(free))
    assert needed == 4
    huge = workload({"item_id": rows})
    for world_size in range(1, needed):
        assert not huge.fits(gpus(world_size))
        assert fewest_ranks(huge, gpus(world_size)) == needed
    assert huge.fits(gpus(needed))


def test_beyond_a_node_whole_nodes_are_added():
    rows = int(20.5 * 79 * GIB * (1 - RESERVE) / 260)
    assert fewest_ranks(workload({"item_id": rows}), gpus(8)) == 24


def test_a_table_forced_onto_one_rank_is_split_first():
    rows = {"item_id": 1_000_000_000, "user_id": 10}
    forced = workload(rows, sharding="table_wise")
    assert next(changes_that_fit(forced, gpus(8))) == "tables.item_id.sharding row_wise"


def test_a_table_twice_too_large_fits_as_fp16_or_cached():
    helps = list(changes_that_fit(workload({"item_id": 400_000_000}), gpus(1)))
    assert helps == [
        "tables.item_id.dtype fp16",
        "tables.item_id.kernel fused_uvm_caching",
        "2 ranks",
    ]


def test_no_cure_is_claimed_that_does_not_fit():
    assert list(changes_that_fit(workload({"item_id": 10**12}), gpus(8))) == []


def test_on_the_cpu_more_ranks_means_more_machines():
    two = TWO_ON_CPU
    rows = int(24 * GIB * (1 - RESERVE) * 1.5 / 260)
    assert fewest_ranks(workload({"item_id": rows}), two) == 4
    assert "fused_uvm_caching" not in " ".join(changes_that_fit(workload({"item_id": rows}), two))


def test_the_dense_part_and_the_reserve_are_taken_off_every_rank():
    table = {"item_id": int(79 * GIB * (1 - RESERVE) / 260) - 1000}
    assert workload(table).fits(gpus(1))
    heavy = replace(workload(table), more_dense=10_000_000)
    with pytest.raises(DoesNotFit, match="tables must fit in 79.0 GiB on each of 1 ranks"):
        heavy.plan(gpus(1))


def test_ranks_add_up_to_the_whole_table():
    work, machines = workload({"item_id": 1_000_003, "user_id": 999}), gpus(16)
    ranks = memory_of_ranks(work, machines, work.plan(machines))
    for part, a_row in (("weights", 64 * 4), ("optimizer", 4)):
        size = sum(getattr(m, part) for rank in ranks for m in rank.tables.values())
        assert size == (1_000_003 + 999) * a_row
    assert [rank.rank for rank in ranks] == list(range(16))
    assert all(rank.used <= rank.capacity for rank in ranks)


@pytest.mark.parametrize("kernel", ["fused", "fused_uvm"])
def test_a_host_holds_a_copy_of_all_that_its_ranks_save_beside_tables_of_its_own(kernel):
    work = replace(workload({"item_id": 1_000_000}, kernel=kernel), more_dense=1000)
    ranks = memory_of_ranks(work, gpus(16), work.plan(gpus(16)))
    table = 1_000_000 * (64 * 4 + 4)
    copies = table // 2 + 8 * 1000 * 3 * 4  # half of the ranks; weights and two moments
    assert bytes_of_node(ranks, gpus(16)) == copies + (table // 2 if kernel == "fused_uvm" else 0)


def test_on_the_cpu_a_copy_lies_beside_what_is_copied():
    work = workload({"item_id": 1000})
    ranks = memory_of_ranks(work, TWO_ON_CPU, work.plan(TWO_ON_CPU))
    used = sum(rank.used for rank in ranks)
    assert bytes_of_node(ranks, TWO_ON_CPU) == used + 1000 * 260


def test_shards_of_a_table_on_one_rank_are_counted_together():
    work = workload({"item_id": 1000}, sharding="column_wise", optimizer="adagrad")
    (table,) = work.plan(gpus(2))
    assert len(table.shards) == 2
    gathered = replace(table, shards=tuple(replace(shard, rank=1) for shard in table.shards))
    empty, full = memory_of_ranks(work, gpus(2), [gathered])
    assert not empty.tables
    assert full.tables["item_id_table"].weights == 1000 * 64 * 4


def test_the_planner_is_told_how_much_of_a_table_is_cached():
    work = workload({"item_id": 10}, kernel="fused_uvm_caching", cache_load_factor=0.5)
    constraints = constraints_of(work.build(), work.tables, gpus(1))
    assert constraints["item_id_table"].cache_params.load_factor == 0.5


@pytest.mark.parametrize(("sharding", "columns"), [("column_wise", 4), ("grid_shard", 32)])
def test_columns_are_split_over_all_ranks_or_where_rows_are_too_over_nodes(sharding, columns):
    work = workload({"item_id": 1000}, sharding=sharding, optimizer="adagrad")
    (table,) = work.plan(gpus(16))
    assert {shard.columns for shard in table.shards} == {columns}


def test_a_cpu_rank_leaves_its_reserve_of_the_hosts_memory():
    (storage, _) = (device.storage for device in TWO_ON_CPU.topology(0).devices)
    assert (storage.hbm, storage.ddr) == (0, 12 * GIB - int(12 * GIB * RESERVE))
