"""Wider batches hold the same bags."""

import numpy as np
import pytest
import torch

from torchrec_mm.data.collate import one_id_bags
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.parallel.strides import widen, with_equal_strides


@pytest.mark.parametrize("stride", [3, 4, 10])
def test_widening_adds_empty_bags_at_the_end_of_every_key(stride):
    bags = one_id_bags({"a": np.array([4, 5, 6]), "b": np.array([7])})
    wide = widen(bags, stride)
    assert wide.stride() == stride
    for name in ("a", "b"):
        assert wide[name].values().tolist() == bags[name].values().tolist()
        expected = bags[name].lengths().tolist() + [0] * (stride - 3)
        assert wide[name].lengths().tolist() == expected


def test_a_lone_rank_passes_its_batches_through(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    batches = [object(), object()]
    with process_group():
        assert list(with_equal_strides(iter(batches))) == batches
    assert torch.distributed.is_initialized() is False
