"""Hashing ids loses none of them."""

import torch

from torchrec_mm.ranking.id_hash import MIX, UNMIX, mix


def test_every_id_is_hashed_to_another_and_back():
    ids = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63), *range(2, 2000), *range(-2000, -1)])
    hashed = mix(ids, MIX)
    assert len(hashed.unique()) == len(ids)
    assert torch.equal(mix(hashed, UNMIX), ids)


def test_consecutive_ids_spread_over_any_number_of_parts():
    hashed = mix(torch.arange(12_000), MIX)
    for parts in (2, 5, 16):
        counts = (hashed % parts).bincount(minlength=parts) * parts / 12_000
        assert counts.min() > 0.8 and counts.max() < 1.2
