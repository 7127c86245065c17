"""On two nodes of a real Slurm, killed and requeued, training ends as it does on this machine."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.helpers.runs import evaluate, lines_of
from tests.helpers.small_market import SmallMarket, write_small_market
from tests.slurm.jobs import (
    STEPS,
    TRAIN_REQUESTS,
    TWO_NODES,
    Jobs,
    component,
    train_without_slurm,
    training_flags,
)
from torchrec_mm.runs.checkpoint_folders import list_checkpoints

pytestmark = pytest.mark.slurm

TWO_SMALL_NODES = ["--num_replicas", "2", "--cpu", "1", "--memMB", "100"]


class Run:
    """What a run folder says while a job trains in it."""

    def __init__(self, market: SmallMarket, path: Path) -> None:
        self.path = path
        self.training = training_flags(market, path)
        self.evaluation = [*market.flags, "--run_dir", str(path)]

    @property
    def saved(self) -> int:
        """Steps in the latest checkpoint, 0 without one."""
        saved = list_checkpoints(self.path / "checkpoints")
        return saved[-1].position.step if saved else 0

    def assert_ends_like(self, whole: dict) -> None:
        """Every step once, and the metrics, up to the order of sums."""
        assert [line["step"] for line in lines_of(self.path, "step")] == list(range(1, STEPS + 1))
        assert without_folder(json.loads((self.path / "metrics.json").read_text())) == whole


def without_folder(metrics: dict) -> dict:
    """Numbers in the tolerance of sums in another order; the checkpoint's path left out."""
    return {
        name: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
        for name, value in metrics.items()
        if name != "checkpoint"
    }


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    return write_small_market(tmp_path_factory.mktemp("market"), train=TRAIN_REQUESTS)


@pytest.fixture(scope="module")
def whole(market, tmp_path_factory) -> dict:
    """Metrics of a run that nobody stopped, on two ranks without Slurm."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    train_without_slurm(market, run_dir)
    return without_folder(evaluate(market, run_dir))


def stops(job_id: str) -> list[tuple[str, ...]]:
    """Commands that do what pre-emption does, and what --signal does before the time limit."""
    return [("scontrol", "requeue", job_id), ("scancel", "--batch", "--signal=USR1", job_id)]


@pytest.fixture
def jobs(cluster, tmp_path) -> Jobs:
    return Jobs(cluster, tmp_path)


def test_under_torchx_a_killed_rank_restarts_both_nodes_and_the_metrics_are_the_local_ones(
    jobs, market, whole, tmp_path
):
    run = Run(market, tmp_path / "run")
    job_id = jobs.torchx(component("train_ranker"), *TWO_NODES, "--", *run.training)
    jobs.wait(lambda: run.saved >= 6)
    before = jobs.ranks()
    os.kill(before["1"], signal.SIGKILL)
    saved = run.saved
    jobs.wait(lambda: len(jobs.ranks()) == 2 and not jobs.ranks().items() & before.items())
    assert saved <= run.saved < STEPS
    end = jobs.end(job_id)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "0"), jobs.logs()
    job_id = jobs.torchx(component("evaluate"), *TWO_NODES, "--", *run.evaluation)
    assert jobs.end(job_id)["JobState"] == "COMPLETED", jobs.logs()
    run.assert_ends_like(whole)


def test_a_plain_script_goes_on_when_requeued_and_requeues_itself_at_the_time_limit(
    jobs, market, whole, tmp_path
):
    run = Run(market, tmp_path / "run")
    job_id = jobs.plain(component("train_ranker"), *TWO_NODES, "--", *run.training)
    for number, stop in enumerate(stops(job_id), 1):
        target = run.saved + 6
        jobs.wait(lambda target=target: run.saved >= target)
        saved = run.saved
        jobs.cluster.ask(*stop)
        jobs.start_soon(job_id, restarts=number)
        jobs.wait(lambda number=number: len(jobs.ranks(f"SLURM_RESTART_COUNT={number}")) == 2)
        assert saved <= run.saved < STEPS
    end = jobs.end(job_id)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "2"), jobs.logs()
    evaluate(market, run.path)
    run.assert_ends_like(whole)


def test_under_a_plain_script_each_node_gets_sigterm_and_the_time_to_save(jobs):
    saves, told = jobs.folder / "saves", jobs.folder / "told"
    # To a file: what is printed after srun has gone is lost. Slurm signals children too, maybe
    # before their parents: hence the loop. The second node needs longer than the first. exec: a
    # shell around it would end at the signal, and what is left of the task with it.
    saves.write_text(
        f"trap 'trap \"\" TERM; sleep $SLURM_NODEID.5; echo saved >> {told}; exit 143' TERM\n"
        f"echo begun >> {told}\nwhile :; do sleep 300 & wait; done\n"
    )

    def have_told(word: str, times: int) -> bool:
        return told.is_file() and told.read_text().count(word) == times

    job_id = jobs.plain("utils.sh", *TWO_SMALL_NODES, "--", "exec", "sh", str(saves))
    for number, stop in enumerate(stops(job_id), 1):
        jobs.wait(lambda number=number: have_told("begun", 2 * number))
        jobs.cluster.ask(*stop)
        jobs.start_soon(job_id, restarts=number)
        assert have_told("saved", 2 * number), jobs.logs()
    jobs.wait(lambda: have_told("begun", 6))
    jobs.cluster.ask("scancel", job_id)
    jobs.wait(lambda: have_told("saved", 6))


def test_a_plain_script_that_fails_is_retried_as_often_as_asked(jobs):
    job_id = jobs.plain("utils.sh", *TWO_SMALL_NODES, "--max_retries", "1", "--", "false")
    jobs.start_soon(job_id, restarts=1)
    end = jobs.end(job_id)
    assert (end["JobState"], end["Restarts"]) == ("FAILED", "1"), jobs.logs()


def test_a_plain_script_gets_devices_for_each_node_and_is_not_tried_again_after_scancel(jobs):
    arguments = [*TWO_SMALL_NODES, "--gpu", "2", "--max_retries", "1"]
    job_id = jobs.plain("utils.sh", *arguments, "--", "sleep", "300")
    jobs.wait(lambda: jobs.cluster.job(job_id)["JobState"] == "RUNNING")
    assert jobs.cluster.job(job_id)["TresPerNode"] == "gres:gpu:2"
    jobs.cluster.ask("scancel", job_id)
    jobs.wait(lambda: not jobs.cluster.processes(f"SLURM_JOB_ID={job_id}"))
    end = jobs.end(job_id)
    assert (end["JobState"], end["Restarts"]) == ("CANCELLED", "0"), jobs.logs()
