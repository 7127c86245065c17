"""Two ranks on two GPUs: what one learns, also where each has another number of ids."""

import json
from pathlib import Path

import pytest

from tests.helpers.kinds_market import write_kinds_market
from tests.helpers.runs import evaluate, lines_of, ranker_flags, train_make, train_ranker
from tests.helpers.small_market import SmallMarket
from tests.helpers.two_ranks import Command, run_on_two_ranks
from torchrec_mm import gpus

pytestmark = pytest.mark.gpu

TOLERANCE = 1e-3
SHARDINGS = ("table_wise", "row_wise")
SENT = {"fp32": TOLERANCE, "fp16": 2e-2, "bf16": 5e-2}


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    """Of bags, text, numbers: requests of other sizes on each rank."""
    return write_kinds_market(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> Path:
    """Of one rank, and of two: by sharding, by what is sent in, and gone on with."""
    if gpus.count() < 2:
        pytest.skip("needs two GPUs")
    folder = tmp_path_factory.mktemp("runs")
    make, two = train_make(market, folder / "make"), ("--epochs", "2")
    train_ranker(market, folder / "alone", "simtier+make", *two, make=make)
    commands = []
    for name, more, sharding in (
        *((sharding, (), sharding) for sharding in SHARDINGS),
        *((sent, ("--communication", sent), "row_wise") for sent in SENT),
    ):
        flags = [*ranker_flags(market, folder / name, "simtier+make", make), *two, *more]
        plan = folder / f"{name}.json"
        commands.append(Command("train_ranker", flags, sharding=sharding, plan=str(plan)))
    run_on_two_ranks(folder, commands)
    return folder


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run_dir, "step")]


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_learn_what_one_does(sharding, runs, market):
    assert set(json.loads((runs / f"{sharding}.json").read_text()).values()) == {sharding}
    assert losses(runs / sharding) == pytest.approx(losses(runs / "alone"), rel=TOLERANCE)
    wanted = evaluate(market, runs / "alone")["log_loss"]
    assert evaluate(market, runs / sharding)["log_loss"] == pytest.approx(wanted, rel=TOLERANCE)


@pytest.mark.parametrize("sent", SENT)
def test_what_is_sent_in_fewer_bits_changes_little(sent, runs):
    assert losses(runs / sent) == pytest.approx(losses(runs / "alone"), rel=SENT[sent])
