"""Memory bank: the keys of past batches, kept as further negatives.

This is the queue of MoCo (He et al. 2020, arXiv:1911.05722); its authors use "memory bank" for
another design.

Shape letters: K memory-bank slots, M new keys, D vector width.
"""

import torch
from torch import Tensor, nn


class MemoryBank(nn.Module):
    """First in, first out: new keys replace the oldest ones.

    keys: (K, D) float. item_ids, query_ids: (K,) int64, whose key it is and which query found it,
    so that false negatives can be masked; any value. filled: number of slots in use.
    """

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(slots, width))
        self.register_buffer("item_ids", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("query_ids", torch.zeros(slots, dtype=torch.int64))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> int:
        """Slots in use; they are the first ones."""
        return min(int(self.enqueued), len(self.keys))

    def contents(self) -> tuple[Tensor, Tensor, Tensor]:
        """keys (filled, D), item_ids (filled,), query_ids (filled,): views, do not change them."""
        used = slice(0, self.filled)
        return self.keys[used], self.item_ids[used], self.query_ids[used]

    @torch.no_grad()
    def enqueue(self, keys: Tensor, item_ids: Tensor, query_ids: Tensor) -> None:
        """Store M keys, oldest first; of more than K only the last K stay.

        Args:
            keys: (M, D) float, the same on every rank.
            item_ids: (M,) int64.
            query_ids: (M,) int64.
        """
        slots = len(self.keys)
        if slots == 0:
            return
        kept = min(len(keys), slots)
        first = int(self.enqueued) + len(keys) - kept
        where = torch.arange(first, first + kept, device=self.keys.device) % slots
        self.keys[where] = keys[len(keys) - kept :]
        self.item_ids[where] = item_ids[len(keys) - kept :]
        self.query_ids[where] = query_ids[len(keys) - kept :]
        self.enqueued += len(keys)
