"""What figures show, read from what is drawn."""

import numpy as np
import pytest

from tests.reporting.made_up import put_ranker
from torchrec_mm.reporting import figures
from torchrec_mm.reporting.figures import epoch_figure, slice_figure
from torchrec_mm.reporting.runs import EpochAuc, find_runs
from torchrec_mm.reporting.summary import group_runs


@pytest.fixture
def drawn(monkeypatch):
    """The figures in place of their SVG."""
    monkeypatch.setattr(figures, "_svg", lambda figure, salt, title: figure)


def lines_of(axis) -> dict[str, list[list[float]]]:
    return {line.get_label(): line.get_xydata().tolist() for line in axis.lines}


def test_the_epoch_of_the_best_test_auc_is_ringed(drawn):
    curve = [EpochAuc(1, 0.7, 0.6), EpochAuc(2, 0.8, 0.75), EpochAuc(3, 0.9, None)]
    (axis,) = epoch_figure([("id", [*curve, EpochAuc(4, 0.95, 0.7)])]).axes
    lines = lines_of(axis)
    assert lines["best test"] == [[2, 0.75]]
    assert lines["train"] == [[1, 0.7], [2, 0.8], [3, 0.9], [4, 0.95]]
    assert np.isnan(lines["test"][2][1]) and lines["test"][3] == [4, 0.7]


def test_gains_by_slice_are_the_method_minus_the_base(drawn, tmp_path):
    put_ranker(tmp_path / "id", method="id", gauc=0.5)
    put_ranker(tmp_path / "simtier", method="simtier", gauc=0.75)
    base, _ = groups = group_runs(find_runs(tmp_path).rankers)
    gauc, gain = slice_figure(groups, "item_age/", base, "age").axes
    panels = (gauc, gain)
    marks = [[bars.lines[0].get_ydata().tolist() for bars in p.containers] for p in panels]
    assert marks == [[[0.5, 0.5], [0.75, 0.75]], [[0, 0], [0.25, 0.25]]]
