"""Keys sort as (cosine descending, row ascending) does, and give back what went in."""

import torch

from torchrec_mm.item_vectors.sort_keys import NOTHING, pack, unpack

COSINES = torch.tensor([0.5, -0.5, -1.0, 1.0, 1e-30, -1e-30, 0.0, 0.5, -0.5, -0.0])
ROWS = torch.tensor([7, 3, 2**32 - 1, 0, 4, 6, 9, 2, 8, 5])


def test_the_largest_key_is_the_nearest_item_and_of_equal_ones_the_first():
    pairs = list(zip(COSINES.tolist(), ROWS.tolist(), strict=True))
    expected = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))  # -0.0 == 0.0
    cosines, rows = unpack(pack(COSINES, ROWS).sort(descending=True).values)
    assert list(zip(cosines.tolist(), rows.tolist(), strict=True)) == expected


def test_an_empty_slot_sorts_last_and_has_no_row():
    assert (pack(COSINES, ROWS) > NOTHING).all()
    cosines, rows = unpack(torch.tensor([NOTHING]))
    assert (cosines.tolist(), rows.tolist()) == ([-torch.inf], [-1])
