"""The memory bank is a queue: checked against a Python list."""

import pytest
import torch

from torchrec_mm.pretraining.memory_bank import MemoryBank


def keys(*values: int) -> torch.Tensor:
    return torch.tensor([[float(v), -float(v)] for v in values])


def enqueue(bank: MemoryBank, *values: int) -> None:
    ids = torch.tensor(values)
    bank.enqueue(keys(*values), ids * 10, ids * 100)


@pytest.mark.parametrize("sizes", [[3], [5], [3, 1, 3], [2, 2, 2, 2], [7], [4, 9, 1], [1] * 12])
def test_the_bank_holds_the_last_keys_with_their_ids(sizes):
    bank, everything = MemoryBank(5, 2), []
    for size in sizes:
        new = list(range(len(everything) + 1, len(everything) + 1 + size))
        enqueue(bank, *new)
        everything += new
        held, item_ids, query_ids = bank.contents()
        assert sorted(item_ids.tolist()) == [10 * v for v in everything[-5:]]
        assert held.tolist() == [[v / 10, -v / 10] for v in item_ids.tolist()]
        assert (query_ids == 10 * item_ids).all()


def test_a_new_bank_is_empty_not_full_of_zeros():
    held, item_ids, query_ids = MemoryBank(5, 2).contents()
    assert len(held) == len(item_ids) == len(query_ids) == 0


def test_a_bank_of_no_slots_stays_empty():
    bank = MemoryBank(0, 2)
    enqueue(bank, 1, 2)
    assert len(bank.contents()[0]) == 0


def test_a_restored_bank_continues_where_it_was():
    bank, restored = MemoryBank(4, 2), MemoryBank(4, 2)
    enqueue(bank, 1, 2, 3, 4, 5)
    restored.load_state_dict(bank.state_dict())
    for each in (bank, restored):
        enqueue(each, 6)
    assert [x.tolist() for x in restored.contents()] == [x.tolist() for x in bank.contents()]
    assert sorted(restored.contents()[1].tolist()) == [30, 40, 50, 60]
