"""Tables of raw ids: their settings, and what the module takes and returns."""

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.errors import InputError
from torchrec_mm.ranking.zero_collision import ZeroCollision, build_zero_collision_tables


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"rows": 100}, "rows must be a multiple of partitions, 16, and at least twice that"),
        ({"rows": 16}, "rows must be a multiple of partitions, 16, and at least twice that"),
        ({"rows": 32, "eviction": "fifo"}, "eviction must be one of lfu, lru, distance_lfu"),
        ({"rows": 32, "interval_steps": 0}, "interval_steps must be at least 1"),
        ({"rows": 2050, "partitions": 1025}, r"partitions must be in \[1, 1024\]"),
        ({"rows": 32, "partitions": 0}, r"partitions must be in \[1, 1024\]"),
    ],
)
def test_settings_out_of_range_are_refused(settings, rule):
    with pytest.raises(InputError, match=rule):
        ZeroCollision(**settings)


def test_ids_read_rows_of_their_own_table_and_missing_ones_zeros():
    sizes = {"user.id": ZeroCollision(rows=32, interval_steps=1), "item": ZeroCollision(rows=48)}
    tables = build_zero_collision_tables(sizes, 4, "cpu")
    lengths = torch.tensor([1, 1, 1, 0])
    ids = KeyedJaggedTensor(["user.id", "item"], torch.tensor([-7, 9, 5]), lengths=lengths)
    embeddings, _ = tables(ids)
    weights = {name: bag.weight for name, bag in tables._embedding_module.embedding_bags.items()}
    owners = tables._managed_collision_collection._managed_collision_modules
    for place, user in enumerate((-7, 9)):
        (row,) = (owners["user_id_table"].ids == user).nonzero()
        assert torch.equal(embeddings["user.id"][place], weights["user_id_table"][row[0]])
    assert (owners["item_table"].ids == 5).sum() == 0  # its table has not evicted yet
    unowned = weights["item_table"].view(16, 3, 4)[:, -1]
    assert (embeddings["item"][0] == unowned).all(1).any()
    assert embeddings["item"][1].eq(0).all()


def test_on_the_meta_device_nothing_takes_memory():
    tables = build_zero_collision_tables({"user": ZeroCollision(rows=1 << 40)}, 64)
    assert all(tensor.is_meta for tensor in tables.state_dict().values())
