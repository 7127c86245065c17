"""Two ranks follow as one does: the same windows, figures, files set aside, deltas for scorers."""

from pathlib import Path

import pytest

from tests.helpers.runs import train_make, train_ranker
from tests.helpers.two_ranks import Command, run_on_two_ranks
from tests.online.following import (
    current_of,
    deltas_of,
    follow,
    follow_flags,
    is_close,
    put,
    put_all,
    requests_of,
    same_bits,
    scorer_at,
    set_aside,
    state_of,
    steps_of,
    weights_of,
    windows_of,
)
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.runs.delta import read_delta

pytestmark = pytest.mark.slow

METHODS = {
    "raw_ids": (
        "id",
        "--zero_collision",
        "{user_id: {rows: 16, interval_steps: 2, partitions: 2}}",
    ),
    "simtier+make": ("simtier+make",),
}
TOLERANCE = 1e-4  # sums of floats in another order


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> Path:
    """Runs of one rank, ``one/<name>``, and of two, ``two/<name>``."""
    folder = tmp_path_factory.mktemp("runs")
    make = train_make(market, folder / "make")
    put_all(folder / "spool", requests_of(market, 0, 17))
    put(folder / "spool", "00008.parquet", requests_of(market, 3, 9))  # again
    (folder / "spool" / "00009.parquet").write_bytes(b"no Parquet")
    commands = []
    for name, (method, *more) in METHODS.items():
        start = train_ranker(market, folder / "start" / name, method, *more, make=make)
        follow(folder / "spool", start, folder / "one" / name)
        flags = follow_flags(folder / "spool", start, folder / "two" / name)
        commands.append(Command("train_ranker", flags))
    run_on_two_ranks(folder, commands)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_two_ranks_judge_and_learn_as_one(name, runs):
    one, two = (windows_of(runs / ranks / name) for ranks in ("one", "two"))
    assert [line["duplicates"] for line in two] == [0, 0, 6, 0]
    for own, other in zip(two, one, strict=True):
        assert own.pop("withheld") is other.pop("withheld") is None
        assert own == pytest.approx(other, rel=TOLERANCE)
    assert is_close(state_of(runs / "two" / name), state_of(runs / "one" / name), TOLERANCE)
    assert set_aside(runs / "two" / name) == set_aside(runs / "one" / name)


@pytest.mark.parametrize("name", METHODS)
def test_deltas_of_two_ranks_lead_to_the_bits_of_their_checkpoints(name, runs):
    run_dir = runs / "two" / name
    assert len(deltas_of(run_dir)) == 4
    first, *steps = steps_of(run_dir)
    scorer = scorer_at(run_dir, first)
    for number, step in enumerate(steps, start=1):
        delta = read_delta(run_dir / "deltas", number)
        scorer.check(delta)
        scorer = scorer.changed(delta)
        assert same_bits(weights_of(scorer), weights_of(scorer_at(run_dir, step)))


def test_one_rank_goes_on_with_what_two_left(market, runs):
    run_dir, start = runs / "two" / "simtier+make", runs / "start" / "simtier+make"
    current = current_of(run_dir)
    put(runs / "spool", "next.parquet", requests_of(market, 17))
    follow(runs / "spool", start, run_dir)
    assert current.take_newest() and current.scorer.delta == 6
    newest = list_checkpoints(run_dir / "checkpoints")[-1]
    whole = scorer_at(run_dir, newest.position.step)
    assert same_bits(weights_of(current.scorer), weights_of(whole))
