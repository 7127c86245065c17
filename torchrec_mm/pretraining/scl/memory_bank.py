"""Memory bank: the keys of past batches, kept as further negatives.

This is the queue of MoCo (He et al. 2020, arXiv:1911.05722); its authors use "memory bank" for
another design.

Shape letters: K memory-bank slots, M new keys, D vector width.
"""

import torch
from torch import Tensor, nn

from torchrec_mm.losses.info_nce import Negatives


class MemoryBank(nn.Module):
    """First in, first out: new keys replace the oldest ones.

    keys: (K, D) float16, half the memory; cosines move by less than 0.001. ids: (K, 2) int64, of
    the key's content and of the query that found it, so that false negatives can be masked.
    enqueued: () int64, keys stored since the start. These tensors are its whole state: whoever
    fills them, by ``load_state_dict`` or in place, has restored it.

    >>> bank = MemoryBank(slots=3, width=2)
    >>> for item in range(4):
    ...     bank.enqueue(torch.ones(1, 2), torch.tensor([[item, 9]]), torch.tensor([True]))
    >>> sorted(bank.contents().ids[:, 0].tolist())
    [1, 2, 3]
    """

    keys: Tensor
    ids: Tensor
    enqueued: Tensor

    def __init__(self, *, slots: int, width: int) -> None:
        """An empty bank. ``slots``: K, 0 holds nothing. ``width``: D."""
        super().__init__()
        self.register_buffer("keys", torch.zeros(slots, width, dtype=torch.float16))
        self.register_buffer("ids", torch.zeros(slots, 2, dtype=torch.int64))
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.int64))

    def contents(self) -> Negatives:
        """The keys stored, as views: do not change them.

        On the CPU the slots in use alone. On a GPU, where to read the count would be to wait for
        it, all slots with a mask.
        """
        if self.keys.device.type != "cpu":
            used = torch.arange(len(self.keys), device=self.keys.device) < self.enqueued
            return Negatives(self.keys, self.ids, used)
        filled = min(int(self.enqueued), len(self.keys))
        return Negatives(self.keys[:filled], self.ids[:filled])

    @torch.no_grad()
    def enqueue(self, keys: Tensor, ids: Tensor, valid: Tensor) -> None:
        """Store the valid ones of M keys, oldest first; of more than K the last K stay.

        Nothing waits for the number of them. Equal arguments on every rank keep the banks equal.

        Args:
            keys: (M, D) float, unit vectors. ids: (M, 2) int64.
            valid: (M,) bool, False for a key to pass over.
        """
        slots = len(self.keys)
        if slots == 0:
            return
        order = valid.to(torch.uint8).argsort(stable=True)[-slots:]  # valid ones last, in order
        self.enqueued += valid.sum()
        back = torch.arange(len(order), 0, -1, device=order.device)
        where = (self.enqueued - back) % slots
        stored = valid[order, None]  # where a key is passed over, the slot keeps what it has
        self.keys[where] = torch.where(stored, keys[order].to(self.keys.dtype), self.keys[where])
        self.ids[where] = torch.where(stored, ids[order], self.ids[where])
