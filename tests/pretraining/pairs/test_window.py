"""A window of steps is judged by what all ranks saw of it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.helpers import another_rank
from torchrec_mm.errors import InputError, TrainingDiverged
from torchrec_mm.pretraining.scl.contrast import Contrast
from torchrec_mm.pretraining.scl.fit import Window
from torchrec_mm.runs.position import Position

NAN = float("nan")


class Scl:
    """Of one contrast; figures are sums of InfoNCE, of the triplet loss, and pairs."""

    contrasts = (Contrast("image", "image"),)
    settings = SimpleNamespace(triplet_weight=2.0)

    def named_figures(self, figures: Tensor) -> dict[str, float]:
        ((info_nce, triplet, pairs),) = figures.tolist()
        return {"image/info_nce": info_nce / pairs, "image/triplet": triplet / pairs}


def window(corrupt: int = 0) -> Window:
    """One step of four pairs and ten pictures, with a loss of 1 + 2 * 0.5 a pair."""
    trainer = SimpleNamespace(
        scl=Scl(),
        precision=SimpleNamespace(leaves_steps_out=False),
        learning_rate=0.1,
    )
    opened = Window(trainer)
    batch = SimpleNamespace(query=SimpleNamespace(num_rows=4), pictures=10, corrupt=corrupt)
    opened.add(batch, torch.tensor([[4.0, 2.0, 4.0]]).double(), torch.tensor(0.3))
    return opened


def close(opened: Window, monkeypatch, *theirs: float) -> dict[str, float]:
    """With another rank's sums of losses and pairs, its pairs, pictures and corrupt ones."""
    another_rank.join(monkeypatch, lambda ours: torch.tensor(theirs).double())
    return opened.close(Position(step=5), corrupt_share=0.2)


def test_the_loss_is_the_mean_over_the_pairs_of_all_ranks(monkeypatch):
    figures = close(window(), monkeypatch, 12, 10, 4, 4, 10, 0)
    assert figures["loss"] == pytest.approx((4 + 12) / 8 + 2 * (2 + 10) / 8)
    assert figures["gradient_norm"] == pytest.approx(0.3)


def test_a_loss_that_another_rank_lost_ends_this_one_too(monkeypatch):
    with pytest.raises(TrainingDiverged, match="loss or gradient became nan in the steps up to 5"):
        close(window(), monkeypatch, NAN, 0, 4, 4, 10, 0)


def test_corrupt_pictures_are_counted_over_all_ranks(monkeypatch):
    close(window(corrupt=4), monkeypatch, 4, 2, 4, 4, 10, 0)
    with pytest.raises(InputError, match="5 of 20 could not be decoded, got 0.2"):
        close(window(corrupt=0), monkeypatch, 4, 2, 4, 4, 10, 5)
