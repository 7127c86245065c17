"""Running sums against the softmax over all keys at once."""

import torch

from torchrec_mm.losses.running_softmax import RunningSoftmax

NONE = torch.zeros(0, dtype=torch.int64)


def test_chunks_in_any_order_give_the_softmax_over_all_keys():
    generator = torch.Generator().manual_seed(0)
    query, positive = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64) * 20
    keys = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    logits = torch.cat([(query * positive).sum(dim=1, keepdim=True), query @ keys.T], dim=1)
    share = logits.softmax(dim=1)
    mean = share[:, :1] * positive + share[:, 1:] @ keys
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        softmax = RunningSoftmax(query, positive, 4)
        for part in order:
            softmax.add(keys[4 * part : 4 * part + 4], (NONE, NONE), None)
        torch.testing.assert_close(softmax.nll(), -logits.log_softmax(dim=1)[:, 0])
        torch.testing.assert_close(softmax.mean_key_minus_positive(), mean - positive)
