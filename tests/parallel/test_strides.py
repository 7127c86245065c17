"""Wider batches hold the same bags."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from tests.helpers import another_rank
from torchrec_mm.data.stream.collate import one_id_bags
from torchrec_mm.parallel.strides import pad_bags, with_equal_strides


@pytest.mark.parametrize("stride", [3, 4, 10])
def test_widening_adds_empty_bags_at_the_end_of_every_key(stride):
    bags = one_id_bags({"a": np.array([4, 5, 6]), "b": np.array([7])})
    wide = pad_bags(bags, stride)
    assert wide.stride() == stride
    for name in ("a", "b"):
        assert wide[name].values().tolist() == bags[name].values().tolist()
        expected = bags[name].lengths().tolist() + [0] * (stride - 3)
        assert wide[name].lengths().tolist() == expected


@dataclass(frozen=True)
class LookedUp:
    """Of a batch what is looked up in tables."""

    item_ids: KeyedJaggedTensor
    features: KeyedJaggedTensor | None
    raw_ids: KeyedJaggedTensor


def test_all_that_is_looked_up_is_as_wide_as_on_the_widest_rank(monkeypatch):
    another_rank.join(monkeypatch, lambda ours: torch.tensor([5, 1]))
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    two, three = (one_id_bags({"a": np.arange(count)}) for count in (2, 3))
    (batch,) = with_equal_strides(iter([LookedUp(two, None, three)]))
    assert (batch.item_ids.stride(), batch.features, batch.raw_ids.stride()) == (5, None, 3)
    (batch,) = with_equal_strides(iter([LookedUp(three, None, one_id_bags({"a": np.arange(0)}))]))
    assert (batch.item_ids.stride(), batch.raw_ids.stride()) == (5, 1)


def test_a_lone_rank_passes_its_batches_through(worker):
    batches = [object(), object()]
    assert list(with_equal_strides(iter(batches))) == batches
