"""Softmax over more keys than fit: running sums instead of all logits at once.

Shape letters: B queries, C keys of a chunk, D vector width.
"""

import torch
from torch import Tensor


class RunningSoftmax:
    """How probable each query's positive is among keys that come in chunks, in one pass.

    Beside that, the mean key under the softmax, from which gradients follow. The positive is kept
    apart from the sums over the others: what is nearly certain keeps its digits. Nothing overflows,
    however large the logits. Works in place in buffers of B x ``chunk`` numbers, and keeps no
    graph: call it without gradient.

    Source: Milakov and Gimelshein 2018, arXiv:1805.02867, algorithm 3; with the mean as in Dao et
    al. 2022, arXiv:2205.14135, algorithm 1.
    """

    def __init__(self, query: Tensor, positive: Tensor, chunk: int) -> None:
        """Start.

        Args:
            query: (B, D) float32 or float64, already divided by the temperature.
            positive: (B, D), same type. chunk: the most keys of an ``add``.
        """
        self.query, self.positive = query, positive
        self._positive_logit = (query * positive).sum(dim=1)
        self._largest = self._positive_logit.clone()
        self._sum = torch.zeros_like(self._largest)  # of exp(logit - largest)
        self._weighted = torch.zeros_like(positive)  # sum of exp(logit - largest) * key
        self._logits = query.new_empty(len(query) * chunk)
        self._keys = query.new_empty(chunk, query.shape[1])

    def add(
        self, keys: Tensor, left_out: Tensor | tuple[Tensor, Tensor], valid: Tensor | None
    ) -> None:
        """Take C further keys.

        Args:
            keys: (C, D) of any float type.
            left_out: pairs to leave out, as a mask (B, C) bool, or as rows (P,) int64 in [0, B) and
                columns (P,) int64 in [0, C).
            valid: (C,) bool, False for a key to leave out for every query; None if there is none.
        """
        # A bank in half precision is widened a chunk at a time, never whole.
        if keys.dtype != self._keys.dtype:
            keys = self._keys[: len(keys)].copy_(keys)
        shape = len(self.query), len(keys)
        logit_BC = self._logits[: shape[0] * shape[1]].view(shape)
        torch.mm(self.query, keys.T, out=logit_BC)
        # Their exp is 0: left out of both sums without a mask of B x C.
        if isinstance(left_out, Tensor):
            logit_BC.masked_fill_(left_out, -torch.inf)
        else:
            logit_BC[left_out] = -torch.inf
        if valid is not None:
            logit_BC.masked_fill_(~valid, -torch.inf)
        largest = torch.maximum(self._largest, logit_BC.amax(dim=1))
        # What was summed relative to a smaller maximum is brought to the new one.
        shrink = (self._largest - largest).exp_()
        self._largest = largest
        weight_BC = logit_BC.sub_(largest[:, None]).exp_()
        self._sum.mul_(shrink).add_(weight_BC.sum(dim=1))
        self._weighted.mul_(shrink[:, None]).addmm_(weight_BC, keys)

    def merge(self, largest: Tensor, total: Tensor, weighted: Tensor) -> None:
        """Take the sums of S other passes over further keys.

        Args:
            largest: (S, B), at least each logit of the pass. total: (S, B), its sum of
                exp(logit - largest). weighted: (S, B, D), of exp(logit - largest) * key.
        """
        top = torch.maximum(self._largest, largest.amax(dim=0))
        shrink, own = (largest - top).exp_(), (self._largest - top).exp_()
        self._largest = top
        self._sum.mul_(own).add_((total * shrink).sum(dim=0))
        self._weighted.mul_(own[:, None]).add_(torch.einsum("sb,sbd->bd", shrink, weighted))

    def nll(self) -> Tensor:
        """(B,) minus the log of the positive's probability, at least 0; 0 if it was alone."""
        others = self._sum.log() + (self._largest - self._positive_logit)
        return torch.logaddexp(others, torch.zeros_like(others))

    def mean_key_minus_positive(self) -> Tensor:
        """(B, D) mean of all keys by their probability, minus the positive; 0 if it was alone."""
        total = self._sum + (self._positive_logit - self._largest).exp()
        return (self._weighted - self._sum[:, None] * self.positive) / total[:, None]
