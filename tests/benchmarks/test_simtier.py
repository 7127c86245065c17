"""What the SimTier benchmark compares."""

from itertools import count

import pytest
import torch

from torchrec_mm.benchmarks import simtier
from torchrec_mm.benchmarks.simtier import Batches, SimTierConfig, compare, measure

SMALL = SimTierConfig(vectors=500, requests=3, candidates=2, behaviours=40, seconds=0.001, runs=1)


def test_every_side_sees_the_same_pairs():
    batches = Batches(SMALL)
    found = batches.ours()(1)
    cosines = batches.gathered_product()(1)
    torch.testing.assert_close(batches.product()(1), cosines)
    best = cosines.flatten(0, 1).sort(descending=True).values
    torch.testing.assert_close(found.cosine[:, :40], best)
    assert (found.tiers - batches.one_hot()(1)).abs().sum() <= 2  # a cosine on the edge of a tier


def test_a_side_is_timed_by_impression(monkeypatch):
    """A clock on which each step takes 12 microseconds, for 3 requests of 2 candidates."""
    ticks = count()
    monkeypatch.setattr(simtier.time, "perf_counter", lambda: next(ticks) * 12e-6)
    assert measure("product", SMALL) == pytest.approx(2.0)


def test_one_line_comes_out_for_each_part_of_the_usual_way(forked):
    lines = list(compare(SMALL))
    assert [line["benchmark"] for line in lines] == [
        "simtier/one_hot",
        "simtier/gathered_product",
        "simtier/product",
    ]
    for line in lines:
        assert line["ratio"] == pytest.approx(line["baseline"] / line["ours"])
