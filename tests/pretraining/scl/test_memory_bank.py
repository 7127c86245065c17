"""The memory bank is a queue: checked against a Python list."""

import pytest
import torch

from torchrec_mm.pretraining.scl.memory_bank import MemoryBank


def enqueue(bank: MemoryBank, values: list[int], valid: list[bool] | None = None) -> None:
    keys = torch.tensor([[float(v), -float(v)] for v in values]).view(-1, 2)
    ids = torch.tensor([[10 * v, 100 * v] for v in values], dtype=torch.int64).view(-1, 2)
    bank.enqueue(keys, ids, torch.tensor(valid or [True] * len(values), dtype=torch.bool))


def held(bank: MemoryBank) -> list[int]:
    """The values in the bank, after checking that keys and ids belong together."""
    found = bank.contents()
    assert found.valid is None
    assert found.keys.tolist() == [[a / 10, -a / 10] for a, _ in found.ids.tolist()]
    assert (found.ids[:, 1] == 10 * found.ids[:, 0]).all()
    return sorted(a // 10 for a, _ in found.ids.tolist())


@pytest.mark.parametrize("sizes", [[3], [5], [3, 1, 3], [2, 2, 2, 2], [7], [4, 9, 1], [1] * 12])
def test_the_bank_holds_the_last_keys_with_their_ids(sizes):
    bank, everything = MemoryBank(slots=5, width=2), []
    for size in sizes:
        new = list(range(len(everything) + 1, len(everything) + 1 + size))
        enqueue(bank, new)
        everything += new
        assert held(bank) == everything[-5:]


@pytest.mark.parametrize("size", [0, 1, 2, 4, 5, 9])
def test_only_valid_keys_enter_and_take_up_room(size):
    bank, everything = MemoryBank(slots=5, width=2), []
    generator = torch.Generator().manual_seed(size)
    for step in range(30):
        new = list(range(step * size + 1, (step + 1) * size + 1))
        valid = (torch.rand(size, generator=generator) < 0.6).tolist()
        enqueue(bank, new, valid)
        everything += [value for value, real in zip(new, valid, strict=True) if real]
        assert held(bank) == everything[-5:]


def test_thousands_of_keys_stay_in_order():
    bank = MemoryBank(slots=5000, width=2)
    new = list(range(1, 4001))
    enqueue(bank, new, [value % 3 > 0 for value in new])
    assert (bank.contents().ids[:, 0] // 10).tolist() == [v for v in new if v % 3]


def test_banks_given_the_same_keys_are_equal_bit_by_bit_however_these_were_cut_up():
    whole, halves = MemoryBank(slots=7, width=2), MemoryBank(slots=7, width=2)
    for step in range(20):
        values = list(range(4 * step, 4 * step + 4))
        enqueue(whole, values, [True, step % 2 == 0, True, False])
        enqueue(halves, values[:2], [True, step % 2 == 0])
        enqueue(halves, values[2:], [True, False])
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, halves.state_dict()[name])


def test_a_new_bank_is_empty_not_full_of_zeros():
    assert len(MemoryBank(slots=5, width=2).contents().keys) == 0


def test_a_bank_of_no_slots_stays_empty():
    bank = MemoryBank(slots=0, width=2)
    enqueue(bank, [1, 2])
    assert held(bank) == []


def by_loading(bank: MemoryBank, state: dict) -> None:
    bank.load_state_dict(state)


def in_place(bank: MemoryBank, state: dict) -> None:
    for name, tensor in bank.state_dict().items():
        tensor.copy_(state[name])


@pytest.mark.parametrize("restore", [by_loading, in_place])
@pytest.mark.parametrize("before", [[], [7, 8], [1, 2, 3, 4, 5, 6, 7]])
def test_a_restored_bank_continues_where_it_was(restore, before):
    bank, restored = MemoryBank(slots=4, width=2), MemoryBank(slots=4, width=2)
    enqueue(bank, [1, 2, 3])
    enqueue(restored, before)
    restore(restored, {name: tensor.clone() for name, tensor in bank.state_dict().items()})
    for each in (bank, restored):
        assert held(each) == [1, 2, 3]
        enqueue(each, [6, 7])
        assert held(each) == [2, 3, 6, 7]
    assert torch.equal(restored.keys, bank.keys)


def test_the_bank_of_the_paper_takes_less_than_60_megabytes():
    with torch.device("meta"):
        bank = MemoryBank(slots=196_800, width=128)
    assert sum(tensor.nbytes for tensor in bank.state_dict().values()) == 53_529_608
    assert 53_529_608 <= 60e6


def test_keys_keep_three_digits():
    bank = MemoryBank(slots=3, width=64)
    keys = torch.nn.functional.normalize(torch.randn(3, 64), dim=1)
    bank.enqueue(keys, torch.zeros(3, 2, dtype=torch.int64), torch.ones(3, dtype=torch.bool))
    assert ((bank.contents().keys.float() @ keys.T) - keys @ keys.T).abs().max() < 1e-3
