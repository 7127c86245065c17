"""Initial table weights: a hash of where a weight is, not of who holds it."""

import pytest
import torch

from torchrec_mm.parallel import initialise
from torchrec_mm.parallel.initialise import hashed_uniform

U32 = 0xFFFFFFFF


def murmur3_finaliser(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x85EBCA6B & U32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & U32
    return x ^ (x >> 16)


def oracle(counter: int, key: int) -> float:
    mixed = murmur3_finaliser((counter & U32) ^ key)
    return (murmur3_finaliser(mixed ^ (counter >> 32) ^ 0x9E3779B9) >> 8) / 2**24


def fill(rows: slice, columns: slice, table_width: int = 6, key: int = 5, scale: float = 0.1):
    """The shard of a table that spans these rows and columns."""
    shard = torch.empty(rows.stop - rows.start, columns.stop - columns.start)
    initialise._fill(shard, rows.start, columns.start, table_width, key, scale)
    return shard


@pytest.mark.parametrize("key", [0, 1, 12345, U32])
def test_every_number_is_that_of_plain_integer_arithmetic(key):
    counters = [0, 1, 2, U32, U32 + 1, 2**40 + 17, 2**62 + 3]
    numbers = hashed_uniform(torch.tensor(counters), key)
    assert numbers.tolist() == [oracle(counter, key) for counter in counters]


def test_numbers_are_uniform_in_zero_to_one():
    numbers = hashed_uniform(torch.arange(200_000), key=7)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert numbers.double().mean() == pytest.approx(0.5, abs=0.005)
    shares = torch.histc(numbers, bins=10, min=0, max=1) / len(numbers)
    assert shares.tolist() == pytest.approx([0.1] * 10, abs=0.005)


def test_neighbours_and_keys_are_not_alike():
    numbers = hashed_uniform(torch.arange(50_000), key=7)
    others = hashed_uniform(torch.arange(50_000), key=8)
    for a, b in ((numbers[1:], numbers[:-1]), (numbers, others)):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.02


def test_a_shard_is_the_same_piece_of_the_table_however_it_is_cut():
    whole = fill(slice(0, 9), slice(0, 6))
    assert torch.equal(fill(slice(4, 9), slice(0, 6)), whole[4:])
    assert torch.equal(fill(slice(0, 9), slice(2, 4)), whole[:, 2:4])
    assert len(whole.unique()) == 9 * 6


def test_a_long_shard_is_filled_in_chunks_without_a_seam(monkeypatch):
    whole = fill(slice(0, 9), slice(0, 6))
    monkeypatch.setattr(initialise, "CHUNK_ROWS", 4)
    assert torch.equal(fill(slice(0, 9), slice(0, 6)), whole)


def test_weights_span_minus_scale_to_scale():
    table = fill(slice(0, 2000), slice(0, 6), scale=0.3)
    assert table.min() >= -0.3 and table.max() < 0.3
    assert table.min() < -0.29 and table.max() > 0.29
    assert table.mean().item() == pytest.approx(0, abs=0.01)
