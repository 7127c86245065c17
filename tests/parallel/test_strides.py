"""Wider batches hold the same bags."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.helpers import another_rank
from torchrec_mm.data.stream.bags import one_id_bags, pad_bags, rounded
from torchrec_mm.parallel.strides import equalise_strides


@pytest.mark.parametrize("stride", [3, 4, 10])
def test_widening_adds_empty_bags_at_the_end_of_every_key(stride):
    bags = one_id_bags({"a": np.array([4, 5, 6]), "b": np.array([7])})
    wide = pad_bags(bags, stride)
    assert wide.stride() == stride
    for name in ("a", "b"):
        assert wide[name].values().tolist() == bags[name].values().tolist()
        expected = bags[name].lengths().tolist() + [0] * (stride - 3)
        assert wide[name].lengths().tolist() == expected


@pytest.mark.parametrize(("count", "stride"), [(1, 1), (15, 15), (17, 18), (900, 960), (961, 1024)])
def test_a_rounded_stride_is_one_of_eight_to_a_power_of_two(count, stride):
    bags = one_id_bags({"a": np.arange(count)})
    wide = rounded(bags)
    assert wide.stride() == stride
    assert torch.equal(wide.values(), bags.values())


def test_what_is_looked_up_is_as_wide_as_on_the_widest_rank(monkeypatch):
    another_rank.join(monkeypatch, lambda ours: torch.tensor(5))
    tables = nn.Identity()
    equalise_strides(tables)
    for count in (0, 2, 5, 6):
        seen = tables(one_id_bags({"a": np.arange(count)}))
        assert seen.stride() == max(count, 5)
        assert seen.values().tolist() == list(range(count))
