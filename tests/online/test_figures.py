"""Figures of a window against plain formulas, weighted and not."""

from math import exp, log

import numpy as np
import pytest

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.encoded.arrays import RequestArrays
from torchrec_mm.online.figures import WindowFigures, measure_window, why_withheld
from torchrec_mm.online.settings import FollowSettings
from torchrec_mm.scoring.predictions import Scored

LENGTHS = np.array([3, 2, 1])
LABELS = np.array([1, 0, 0, 1, 0, 1], np.int8)
LOGITS = np.array([0.5, -1.0, 2.0, 0.0, 0.0, -30.0], np.float32)
WEIGHTS = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0], np.float32)


def arrays_of(weights: np.ndarray | None) -> RequestArrays:
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    return RequestArrays(
        rows=np.arange(3),
        user_ids=np.array([7, 8, 7]),
        timestamps=None,
        request_rows={},
        candidates=Jagged(np.zeros(6, np.int32), offsets),
        labels=LABELS,
        behaviours=Jagged(np.zeros(0, np.int32), np.zeros(4, np.int64)),
        behaviour_rows={},
        weights=weights,
    )


def scored() -> list[Scored]:
    """The requests in two parts, the second first."""
    rows, cut = np.arange(3), LENGTHS[0]
    first = Scored(rows[:1], LENGTHS[:1], LABELS[:cut], LOGITS[:cut])
    return [Scored(rows[1:], LENGTHS[1:], LABELS[cut:], LOGITS[cut:]), first]


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_figures_are_those_of_plain_formulas(weights, worker):
    figures = measure_window(scored(), arrays_of(weights))
    ones = [1.0] * 6 if weights is None else weights.tolist()
    chances = [1 / (1 + exp(-logit)) for logit in LOGITS.tolist()]
    losses = [-log(p if y else 1 - p) for p, y in zip(chances, LABELS, strict=True)]
    mean = [
        sum(w * v for w, v in zip(ones, values, strict=True)) / sum(ones)
        for values in (losses, chances, LABELS.tolist())
    ]
    assert figures.log_loss == pytest.approx(mean[0])
    assert figures.calibration == pytest.approx(mean[1] / mean[2])
    assert figures.impressions == 6
    pairs = [(a, b) for a in LOGITS[LABELS == 1] for b in LOGITS[LABELS == 0]]
    assert figures.auc == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))
    # User 7: clicks .5 and -30 against -1 and 2; user 8: a tie.
    assert figures.gauc == pytest.approx((4 * 1 / 4 + 2 * 0.5) / 6)


def test_what_is_not_defined_is_none_and_does_not_pass(worker):
    arrays = arrays_of(None)
    clicks = Scored(np.array([2]), LENGTHS[2:], LABELS[5:], LOGITS[5:])
    figures = measure_window([clicks], arrays)
    assert (figures.auc, figures.gauc) == (None, None)
    none = measure_window(
        [Scored(np.array([1]), LENGTHS[1:2], np.zeros(2, np.int8), LOGITS[:2])], arrays
    )
    assert none.calibration is None
    asked = {"follow": "x", "start_from": "y", "epochs": 1}
    assert why_withheld(figures, FollowSettings(**asked)) is None
    assert "got None" in why_withheld(figures, FollowSettings(**asked, least_gauc=0.0))
    assert "got None" in why_withheld(none, FollowSettings(**asked, most_miscalibration=9.0))


@pytest.mark.parametrize(
    ("calibration", "passes"),
    [(1.0, True), (1.25, True), (0.8, True), (1.26, False), (0.79, False)],
)
def test_calibration_is_bounded_on_both_sides(calibration, passes):
    figures = WindowFigures(10, 0.5, 0.5, 0.7, calibration)
    asked = FollowSettings(follow="x", start_from="y", epochs=1, most_miscalibration=1.25)
    assert (why_withheld(figures, asked) is None) == passes
