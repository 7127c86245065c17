"""What the GAUC benchmark states."""

import pytest

from torchrec_mm.benchmarks.gauc import GaucConfig, auc_by_loop, compare


def test_three_lines_on_one_size_and_the_full_one_and_all_sides_find_the_same(forked):
    lines = list(compare(GaucConfig(impressions=3000, full_impressions=5000, runs=1)))
    assert [line["benchmark"] for line in lines] == ["gauc", "gauc/files", "gauc/full"]
    assert [line["impressions"] for line in lines] == [3000, 3000, 5000]
    for line in lines[:2]:
        assert line["ratio"] == line["baseline"] / line["ours"]
        assert line["largest_difference"] < 1e-12
    assert lines[2]["ours"] > 0 and lines[2]["peak_bytes"] > 0


def test_the_loop_of_the_baseline_counts_ties_one_half():
    assert auc_by_loop([(0.5, 1), (0.5, 0), (0.2, 0)]) == pytest.approx(0.75)
    assert auc_by_loop([(0.5, 1)]) is None
