"""Initial table weights that depend on the row, not on how the table is sharded.

A random number generator would give each sharding plan another model. Here every weight is a
hash of (seed, table, row, column), so one rank and sixteen start from the same table, and a rank
fills its shard without ever seeing the rest.
"""

import zlib

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor

CHUNK_ROWS = 1 << 14  # keeps the temporaries of a few bytes a weight small


@torch.no_grad()
def initialise_tables(module: nn.Module, *, scale: float, seed: int) -> None:
    """Fill this rank's shards of every sharded table, uniform in [-scale, scale)."""
    for name, weight in module.state_dict().items():
        if isinstance(weight, ShardedTensor) and len(weight.size()) == 2:  # not who owns its rows
            for shard in weight.local_shards():
                row, column = shard.metadata.shard_offsets
                key = zlib.crc32(name.encode()) ^ (seed * 0x9E3779B1 & 0xFFFFFFFF)
                _fill(shard.tensor, row, column, weight.size(1), key, scale)


def _fill(shard: Tensor, row: int, column: int, width: int, key: int, scale: float) -> None:
    for start in range(0, len(shard), CHUNK_ROWS):
        part = shard[start : start + CHUNK_ROWS]
        rows = torch.arange(row + start, row + start + len(part), device=shard.device)
        columns = torch.arange(column, column + part.shape[1], device=shard.device)
        uniform = hashed_uniform(rows[:, None] * width + columns, key)
        part.copy_((uniform * 2 - 1) * scale)


def hashed_uniform(counters: Tensor, key: int) -> Tensor:
    """A number in [0, 1) for each counter, the same on every device.

    Args:
        counters: int64 of any shape, non-negative. key: in [0, 2**32), which stream of numbers.

    Returns:
        float32 of the same shape, multiples of 2**-24. Source: the finaliser of MurmurHash3
        (Appleby, public domain), applied to the counter's halves in turn.
    """
    mixed = _mix((counters & 0xFFFFFFFF) ^ key)
    mixed = _mix(mixed ^ (counters >> 32) ^ 0x9E3779B9)
    return (mixed >> 8).float() * 2.0**-24


def _mix(x: Tensor) -> Tensor:
    """The 32-bit finaliser on int64 tensors that hold 32-bit values."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * factor & 0xFFFFFFFF
    return x ^ (x >> 16)
