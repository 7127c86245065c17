"""Padded lists as the network's batches have them, one after another, by shapes alone.

How many values are real is known when a program runs, not when it is written, so what is made here
has room for all, and garbage where nobody looks.

Shape letters: R requests, C candidates, L behaviours of the longest list, N newest.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Newest(NamedTuple):
    """The newest of each list.

    values: (R, N), -1 for padding, which comes last. places: (R, N) int64, where in the list each
    is, 0 for padding. lengths: (R,) int64 in [0, N]. offsets: (R + 1,) int64, their sums.
    """

    values: Tensor
    places: Tensor
    lengths: Tensor
    offsets: Tensor

    def taken(self, attributes: Tensor) -> Tensor:
        """(R, L, W) attributes of all, to (R, N, W) of these."""
        room = F.pad(attributes, (0, 0, 0, 1))
        return room.gather(1, self.places[:, :, None].expand(-1, -1, attributes.shape[2]))

    def in_order(self, padded: Tensor) -> Tensor:
        """(R, N, ...) to (R * N, ...): list after list without padding, then anything."""
        count, most = self.values.shape
        place = torch.arange(count * most)
        whose = (torch.searchsorted(self.offsets, place, right=True) - 1).clamp(max=count - 1)
        within = (place - self.offsets[whose]).clamp(max=most - 1)
        return padded[whose, within]


def newest_of(padded: Tensor, most: int) -> Newest:
    """The last N = ``most`` real values of (R, L) lists, whose padding, -1, comes last."""
    count = (padded >= 0).sum(1)
    lengths = count.clamp(max=most)
    place = torch.arange(most)
    is_real = place < lengths[:, None]
    places = ((count - lengths)[:, None] + place).masked_fill(~is_real, 0)
    values = F.pad(padded, (0, 1), value=-1).gather(1, places).masked_fill(~is_real, -1)
    return Newest(values, places, lengths, F.pad(lengths.cumsum(0), (1, 0)))


def pairs_in_order(values: Tensor, behaviours: Newest) -> Tensor:
    """(R, C, N) of each pair, to (R * C * N,): candidate after candidate without padding."""
    count, candidates, most = values.shape
    lengths = behaviours.lengths
    first = F.pad((lengths * candidates).cumsum(0), (1, 0))
    place = torch.arange(count * candidates * most)
    whose = (torch.searchsorted(first, place, right=True) - 1).clamp(max=count - 1)
    length = lengths[whose].clamp(min=1)
    within = place - first[whose]
    candidate = (within // length).clamp(max=candidates - 1)
    return values[whose, candidate, within % length]
