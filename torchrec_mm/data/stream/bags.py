"""The tables' inputs of a batch, as TorchRec takes them.

Shape letters: R requests, S item slots.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.encoded.encoded import EncodedItems, RequestArrays


def one_id_bags(rows: Mapping[str, np.ndarray]) -> KeyedJaggedTensor | None:
    """One bag of one id for each row number; the shorter features end in empty bags."""
    if not rows:
        return None
    stride = max(len(ids) for ids in rows.values())
    lengths = np.zeros((len(rows), stride), dtype=np.int32)
    for lengths_of_table, ids in zip(lengths, rows.values(), strict=True):
        lengths_of_table[: len(ids)] = 1
    return KeyedJaggedTensor(
        keys=list(rows),
        values=torch.from_numpy(np.concatenate(list(rows.values()), dtype=np.int64)),
        lengths=torch.from_numpy(lengths.reshape(-1)),
        stride=stride,
    )


def bags_of(
    share: RequestArrays,
    items: EncodedItems,
    slots: np.ndarray,
    shared: Mapping[str, np.ndarray] = {},
) -> KeyedJaggedTensor | None:
    """The multi-hot features of R requests, and of the items ``slots``, (S,); None without any.

    ``shared``: rows by feature, each of which is a bag of its own.
    """
    of_slots = {name: bag.take(slots)[0] for name, bag in items.bags.items()}
    ones = {name: Jagged(rows, np.arange(len(rows) + 1)) for name, rows in shared.items()}
    return multi_hot({**share.request_bags, **of_slots, **ones})


def multi_hot(bags: Mapping[str, Jagged]) -> KeyedJaggedTensor | None:
    """Bags of any size by feature; the shorter features end in empty bags."""
    if not bags:
        return None
    stride = max(map(len, bags.values()))
    lengths = np.zeros((len(bags), stride), dtype=np.int32)
    for lengths_of_table, bag in zip(lengths, bags.values(), strict=True):
        lengths_of_table[: len(bag)] = bag.lengths
    return KeyedJaggedTensor(
        keys=list(bags),
        values=torch.from_numpy(np.concatenate([b.values for b in bags.values()], dtype=np.int64)),
        lengths=torch.from_numpy(lengths.reshape(-1)),
        stride=stride,
    )


def pad_bags(features: KeyedJaggedTensor, stride: int) -> KeyedJaggedTensor:
    """The same bags, then empty ones up to ``stride`` for every key."""
    lengths = features.lengths().view(len(features.keys()), features.stride())
    return KeyedJaggedTensor(
        keys=features.keys(),
        values=features.values(),
        lengths=F.pad(lengths, (0, stride - features.stride())).flatten(),
        stride=stride,
    )


def rounded(bags: KeyedJaggedTensor) -> KeyedJaggedTensor:
    """The same bags, then as many empty ones as make their number one of 8 to a power of two.

    Ranks whose batches are about as large then mostly have the same number: collectives have a
    slower way for several. There are at most an eighth more.
    """
    step = 1 << max(0, (bags.stride() - 1).bit_length() - 4)
    return pad_bags(bags, -(-bags.stride() // step) * step)
