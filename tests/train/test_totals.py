"""Sums of an epoch: means of what was added, also across a checkpoint."""

import pytest
import torch
import torch.distributed as dist

from tests.helpers import another_rank
from tests.train.test_warm_up import TableAndWeight
from torchrec_mm.parallel.sharding import DistributedModel, OptimizerSettings, distribute
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import RunFolder
from torchrec_mm.train.fit import restore
from torchrec_mm.train.state import Training
from torchrec_mm.train.totals import MOST_STEPS, Totals


def add(totals: Totals, loss: float) -> None:
    """Three impressions, one of them clicked and ranked second."""
    totals.add(torch.tensor(loss), torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))


def test_a_window_is_the_mean_since_the_last_one(worker):
    totals = Totals(worker.device)
    for loss in (1.0, 3.0):
        add(totals, loss)
    assert totals.close_window() == 2
    add(totals, 7.0)
    assert totals.close_window() == 7


def test_more_steps_than_are_kept_at_once_all_count(worker):
    totals = Totals(worker.device)
    for step in range(MOST_STEPS + 1):
        add(totals, float(step))
    assert totals.impressions() == 3 * (MOST_STEPS + 1)
    assert totals.close_window() == MOST_STEPS / 2


def test_an_epoch_is_the_mean_of_its_steps_and_starts_over(worker):
    totals = Totals(worker.device)
    for loss in (1.0, 2.0, 6.0):
        add(totals, loss)
        totals.close_window()
    epoch = totals.close_epoch()
    assert (epoch.loss, epoch.auc, epoch.impressions) == (3, 0.5, 9)
    assert not any(sums.any() for sums in totals.tensors().values())


def test_a_step_without_an_impression_counts_with_its_loss_of_nothing(worker):
    totals = Totals(worker.device)
    add(totals, 2.0)
    totals.add(torch.tensor(0.0), torch.zeros(0), torch.zeros(0))
    assert totals.impressions() == 3 and totals.close_window() == 1


def test_what_a_checkpoint_held_is_counted_on(worker):
    before, after = Totals(worker.device), Totals(worker.device)
    add(before, 1.0)
    before.close_window()
    add(before, 2.0)
    before.reduce()
    for name, sums in after.tensors().items():
        sums.copy_(before.tensors()[name])
    add(after, 6.0)
    assert after.close_window() == 4
    epoch = after.close_epoch()
    assert (epoch.loss, epoch.impressions) == (pytest.approx(3), 9)


def test_two_ranks_shares_of_a_global_batch_make_its_loss(worker, monkeypatch):
    """A rank's loss is its part of the batch's times the number of ranks; steps count once."""
    another_rank.join(monkeypatch, lambda ours: torch.tensor([5.0 / 2, 0.0]).double())
    totals = Totals(worker.device)
    add(totals, 1.0)
    assert totals.close_window() == 3


def test_other_ranks_count_no_steps_and_keep_nothing_that_was_reduced(worker, monkeypatch):
    another_rank.join(monkeypatch, torch.ones_like)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    totals = Totals(worker.device)
    add(totals, 3.0)
    assert totals.tensors()["window"].tolist() == [3 / 2, 0]
    totals.close_window()
    assert not totals.epoch.any() and totals.impressions() == 3
    totals.reduce()
    assert totals.impressions() == 0


@pytest.mark.parametrize(
    ("position", "impressions"),
    [(Position(step=4, epoch=0, requests_done=60), 3), (Position(step=4, epoch=1), 0)],
)
def test_an_epoch_is_counted_on_until_it_has_ended(
    position, impressions, worker, tmp_path, monkeypatch
):
    """Of an epoch that was stopped after its last step, the sums are on disk when it ends."""
    told: list[int] = []
    monkeypatch.setattr(DistributedModel, "set_step", lambda _, step: told.append(step))
    settings = OptimizerSettings(learning_rate=0.0, weight_decay=0.0)
    models = [distribute(TableAndWeight(), worker, settings, seed=0) for _ in range(2)]
    before, after = map(Training, models)
    before.distributed.create_optimizer_state()
    add(before.totals, 1.0)
    run = RunFolder(tmp_path, worker)
    with Checkpointer(run.checkpoints) as checkpointer:
        checkpointer.save(before.shards(), position)
    restore(run, after)
    assert after.totals.impressions() == impressions
    assert (after.position, told) == (position, [4])
