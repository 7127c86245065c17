"""Seeds become one row, rows come in the table's order, gains are differences of means."""

import pytest

from tests.reporting.made_up import put_ranker
from torchrec_mm.reporting.runs import EpochAuc, find_runs
from torchrec_mm.reporting.summary import METHODS, Gain, Spread, baseline, group_runs, mean_epochs


def test_a_spread_is_the_mean_and_half_the_range():
    assert Spread.of([0.5, None, 0.75, 0.625]) == Spread(0.625, 0.125)
    assert Spread.of([0.5]) == Spread(0.5, None)
    assert Spread.of([None]) == Spread(None, None)


def test_a_gain_counts_when_it_exceeds_both_ranges():
    base = Spread(0.5, 0.25)
    assert Gain.between(Spread(1.0, 0.125), base) == Gain(0.5, 1.0, True)
    assert Gain.between(Spread(1.0, 0.25), base) == Gain(0.5, 1.0, False)
    assert Gain.between(Spread(1.0, None), base) == Gain(0.5, 1.0, None)
    assert Gain.between(Spread(None, None), base) is None


def test_seeds_of_a_method_are_one_group_and_groups_come_in_the_papers_order(tmp_path):
    for number, method in enumerate(reversed(METHODS)):
        for seed, name in enumerate("ba"):
            put_ranker(tmp_path / f"{number}-{name}", method=method, seed=seed)
    put_ranker(tmp_path / "mine", method="mine")
    groups = group_runs(find_runs(tmp_path).rankers)
    assert [group.label for group in groups] == [*METHODS, "mine"]
    assert groups[0].seeds == "0, 1"


def test_groups_of_one_method_are_told_apart_by_what_differs(tmp_path):
    put_ranker(tmp_path / "1", method="simtier", encoder="scl", modality="image")
    put_ranker(tmp_path / "2", method="simtier", encoder="scl", modality="text")
    put_ranker(tmp_path / "3", method="make", encoder="scl", modality="text")
    put_ranker(tmp_path / "4", method="make", encoder="off-the-shelf", modality="text")
    labels = [group.label for group in group_runs(find_runs(tmp_path).rankers)]
    assert labels == ["simtier · image", "simtier · text", "make · off-the-shelf", "make · scl"]


def test_an_id_model_of_several_epochs_is_not_the_baseline(tmp_path):
    put_ranker(tmp_path / "long", method="id", epochs=[(0.7, 0.6)] * 3)
    put_ranker(tmp_path / "short", method="id", epochs=[(0.7, 0.6)])
    put_ranker(tmp_path / "silent", method="id", seed=1)
    groups = group_runs(find_runs(tmp_path).rankers)
    assert [group.label for group in groups] == ["id · 1 epoch", "id · 3 epochs"]
    assert baseline(groups, "id").seeds == "0, 1"
    assert baseline(groups, "make") is None


def test_curves_of_several_seeds_are_averaged_epoch_by_epoch():
    one = [EpochAuc(1, 0.5, 0.25), EpochAuc(2, 1.0, None)]
    other = [EpochAuc(1, 1.0, 0.75)]
    assert mean_epochs([one, other]) == (EpochAuc(1, 0.75, 0.5), EpochAuc(2, 1.0, None))
    assert mean_epochs([]) == ()


def test_a_slice_is_averaged_over_the_runs_that_measured_it(tmp_path):
    put_ranker(tmp_path / "0", gauc=0.5)
    put_ranker(tmp_path / "1", gauc=0.75, seed=1)
    (group,) = group_runs(find_runs(tmp_path).rankers)
    assert group.slice_spread("item_frequency/0") == Spread(0.625, 0.125)
    assert group.slice_spread("nowhere").mean is None
    assert group.spread("auc").mean == pytest.approx(0.725)
