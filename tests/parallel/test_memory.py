"""Bytes of a shard, against counts by hand."""

from types import SimpleNamespace

import pytest
import torch

from torchrec_mm.parallel.memory import ExactStorage, ShardMemory, replicated_bytes, shard_memory
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.parallel.topology import GIB, Machines


def count(kernel: str = "fused", ids: int = 0, raw: bool = False, **settings) -> ShardMemory:
    """A shard of 100 of a table's 400 rows, 8 columns wide."""
    return shard_memory(
        rows=100,
        columns=8,
        table_rows=400,
        settings=TableSettings(kernel=kernel, **settings),
        kernel=kernel,
        global_ids=ids,
        takes_raw_ids=raw,
    )


@pytest.mark.parametrize(
    ("optimizer", "state"),
    [("rowwise_adagrad", 4), ("adagrad", 4 * 8), ("adam", 2 * 4 * 8), ("sgd", 0)],
)
@pytest.mark.parametrize(("dtype", "element"), [("fp32", 4), ("fp16", 2)])
def test_state_is_fp32_whatever_the_weights_are(optimizer, state, dtype, element):
    memory = count(optimizer=optimizer, dtype=dtype)
    assert (memory.weights, memory.optimizer) == (100 * 8 * element, 100 * state)
    assert memory.device_bytes == memory.weights + memory.optimizer
    assert memory.host_bytes == 0


def test_a_table_on_the_host_takes_buffers_alone_on_the_device():
    memory = count("fused_uvm", ids=10)
    assert memory.host_bytes == 100 * (8 * 4 + 4)
    assert memory.device_bytes == memory.buffers > 0


def test_cached_rows_lie_on_the_device_with_their_bookkeeping():
    memory = count("fused_uvm_caching", cache_load_factor=0.5)
    assert memory.host_bytes == 100 * (8 * 4 + 4)
    assert memory.device_bytes == 50 * (8 * 4 + 16) + 100 * 4


def test_buffers_hold_ids_of_two_batches_and_a_bag_and_its_gradient_for_every_id():
    # a quarter of 80 ids belong to this quarter of the rows, but it sums a bag for each
    assert count(ids=80).buffers == 20 * 8 * 2 + 80 * 8 * 4 * 2


def test_each_rank_holds_its_dense_part_and_its_own_batch():
    dense, batch = replicated_bytes(dense_parameters=1000, widths=[8, 4], batch_ids=10)
    assert dense == 1000 * (4 + 4 + 4 + 4)
    assert batch == 10 * (8 * 2 + 8 * 4 * 2) + 10 * (8 * 2 + 4 * 4 * 2)


def test_a_row_of_raw_ids_takes_32_bytes_more():
    assert count(raw=True).device_bytes - count().device_bytes == 100 * 32


@pytest.mark.parametrize(
    ("device", "kernel"), [("cuda", "fused"), ("cuda", "fused_uvm"), ("cpu", "fused")]
)
def test_the_planner_is_told_the_bytes_that_we_count_for_the_ids_of_all_ranks(device, kernel):
    shard = SimpleNamespace(size=(100, 8), storage=None)
    option = SimpleNamespace(name="t", shards=[shard], compute_kernel=kernel, batch_size=20)
    option.tensor = torch.empty(400, 8, device="meta")
    machines = Machines(device, world_size=4, devices_per_node=4, device_bytes=GIB, host_bytes=GIB)
    ExactStorage(machines, {"t": TableSettings()}).estimate([option], {})
    memory = count(kernel, ids=80)
    host = memory.host_bytes if device == "cuda" else memory.device_bytes
    assert shard.storage.hbm == (memory.device_bytes if device == "cuda" else 0)
    assert shard.storage.ddr == host


def test_shards_of_a_rank_add_up():
    assert count(ids=80) + count(ids=80) == ShardMemory(
        *(2 * part for part in (100 * 32, 400, 0, count(ids=80).buffers)), on_host=False
    )
