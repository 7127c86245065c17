"""SIGTERM ends training in time, on all ranks after the same step, and nothing is lost.

As a module of its own this is what a rank runs: ``python -m tests.runs.test_stop FLAGS`` trains,
and the second rank signals itself.
"""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import forks
from tests.helpers.forks import DEVNULL, PATIENCE_S, TWO_RANKS, Fork, wait_until
from tests.helpers.runs import epochs_of, lines_of, predictions, ranker_flags, train_ranker
from tests.helpers.small_market import SmallMarket
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.stop import Stopped
from torchrec_mm.scoring import predictions as scoring
from torchrec_mm.train import fit

STEPS = 4  # of an epoch: 60 requests, 16 a batch
EPOCHS = ("--epochs", "2", "--test_auc", "true")
# Sums of floats in another order.
LOSS_TOLERANCE = 1e-5
PATIENCE = ("--stop_timeout_s", "1e6")  # the process is not to end: it is the tests'


@pytest.fixture(scope="module")
def whole(market, tmp_path_factory) -> Path:
    """A run that nobody stopped."""
    return train_ranker(market, tmp_path_factory.mktemp("whole") / "run", "simtier", *EPOCHS)


@pytest.fixture
def handlers() -> Iterator[None]:
    """SIGTERM kills again afterwards; a process that was asked to stop would not hear it."""
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def signal_before(patch: pytest.MonkeyPatch, step: int, times: int = 1) -> None:
    """This process gets SIGTERM where ``step`` begins, counted from 0."""
    before_step = fit.Loop._before_step

    def signalled(loop):
        if loop.training.position.step == step:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGTERM)
        before_step(loop)

    patch.setattr(fit.Loop, "_before_step", signalled)


def assert_goes_on(market: SmallMarket, run_dir: Path, whole: Path) -> None:
    """Resumed, a stopped run is the one that never stopped."""
    train_ranker(market, run_dir, "simtier", *EPOCHS, "--resume", "true")
    assert lines_of(run_dir, "step") == lines_of(whole, "step")
    assert epochs_of(run_dir) == epochs_of(whole)
    alike = [predictions(market, run, run_dir / "p.parquet") for run in (run_dir, whole)]
    assert alike[0] == alike[1]


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2, STEPS - 1, 2 * STEPS - 1])
def test_the_step_is_finished_and_saved_and_the_run_goes_on(
    step, market, whole, tmp_path, capsys, handlers
):
    with pytest.MonkeyPatch.context() as patch:
        signal_before(patch, step, times=2)
        with pytest.raises(Stopped) as stopped:
            train_ranker(market, tmp_path / "run", "simtier", *EPOCHS, *PATIENCE)
    assert stopped.value.code == 143
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"stopped by SIGTERM after step {step + 1}; --resume goes on from there"
    saved = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    done = 16 * (step % STEPS + 1)
    next_step, epoch = step + 1, step // STEPS
    assert saved.position == Position(step=next_step, epoch=epoch, requests_done=min(done, 60))
    assert_goes_on(market, tmp_path / "run", whole)


def test_a_stop_while_the_test_set_is_scored_loses_no_step(market, whole, tmp_path, handlers):
    of_batch = scoring.Scored.of_batch

    def signalled(*scored):
        os.kill(os.getpid(), signal.SIGTERM)
        return of_batch(*scored)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring.Scored, "of_batch", signalled)
        with pytest.raises(Stopped):
            train_ranker(market, tmp_path / "run", "simtier", *EPOCHS, *PATIENCE)
    saved = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    assert saved.position == Position(step=STEPS, epoch=0, requests_done=60)
    assert not list((tmp_path / "run").glob(".predictions.*"))
    assert_goes_on(market, tmp_path / "run", whole)


def launch(run_dir: Path, module: str, flags: list[str]) -> Fork:
    """A command on two ranks; what they print is in a file beside the run."""
    said = run_dir.with_suffix(".err")
    return Fork([*TWO_RANKS, "-m", module, *flags], stdout=DEVNULL, stderr=said)


def stopped_after(run_dir: Path) -> int:
    """The step that the one line of the ranks names."""
    said = run_dir.with_suffix(".err").read_text()
    (step,) = re.findall(r"^stopped by SIGTERM after step (\d+); --resume", said, re.MULTILINE)
    return int(step)


def test_a_signal_to_one_rank_stops_both_after_the_same_step(market, whole, tmp_path):
    run_dir = tmp_path / "run"
    flags = [*ranker_flags(market, run_dir, "simtier"), *EPOCHS, "--checkpoint_steps", "1"]
    assert launch(run_dir, "tests.runs.test_stop", flags).wait(PATIENCE_S) == 1
    # The other may be in the middle of leaving when torchrun sends it SIGTERM.
    assert re.search(r"exitcode *: 143 ", run_dir.with_suffix(".err").read_text())
    assert stopped_after(run_dir) in (2, 3, 4)
    saved = list_checkpoints(run_dir / "checkpoints")[-1]
    assert saved.position.step == stopped_after(run_dir)
    train_ranker(market, run_dir, "simtier", *EPOCHS, "--resume", "true")
    ours, theirs = ([line["loss"] for line in lines_of(r, "step")] for r in (run_dir, whole))
    assert ours == pytest.approx(theirs, rel=LOSS_TOLERANCE)


def test_a_signal_to_torchrun_ends_all_in_time_and_nothing_is_lost(market, tmp_path):
    run_dir = tmp_path / "run"
    flags = [*ranker_flags(market, run_dir, "id"), "--epochs", "1000"]
    launched = launch(run_dir, "apps.train_ranker", flags)
    wait_until((run_dir / "metrics.jsonl").is_file, launched)
    launched.terminate()
    assert launched.wait(PATIENCE_S) != 0
    saved = list_checkpoints(run_dir / "checkpoints")[-1]
    assert saved.position.step == stopped_after(run_dir) == lines_of(run_dir, "step")[-1]["step"]


def test_what_hangs_is_ended_when_its_time_is_over():
    code = """
import os, signal
import torch.distributed as dist
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.runs.stop import Stop
with process_group(), Stop(0.2):
    os.kill(os.getpid(), signal.SIGTERM)
    dist.HashStore().get("never")  # not in Python, where its handlers run
"""
    ended = forks.run([sys.executable, "-c", code])
    assert ended.returncode == 143, ended.stderr
    assert ended.stderr.startswith("stopped by SIGTERM without saving: 0.2 seconds are over; ")


if __name__ == "__main__":
    import apps.train_ranker
    from torchrec_mm.config import run

    if os.environ["RANK"] == "1":
        signal_before(pytest.MonkeyPatch(), step=1, times=3)
    sys.exit(run(apps.train_ranker.main, sys.argv[1:]))
