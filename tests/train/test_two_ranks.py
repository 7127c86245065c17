"""Two ranks are one rank, only faster: same losses, same predictions, either's checkpoints."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import apps.predict
from tests.helpers.runs import (
    evaluate,
    lines_of,
    make_flags,
    predictions,
    ranker_flags,
    small_batches,
    stopped_before,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import SmallMarket, lengthen, write_small_market
from tests.helpers.two_ranks import Command, run_on_two_ranks

METHODS = ("id", "simtier+make")
SHARDINGS = ("table_wise", "row_wise")
VECTOR_METHODS = ("simtier", "make", "codes", "muse")
STORAGES = ("mapped", "sharded")
# Sums of floats in another order. Measured after 8 steps: losses 2e-7, logits 2e-7.
LOSS_TOLERANCE = 1e-5
LOGIT_TOLERANCE = 1e-4
MORE = ("--epochs", "2", "--test_auc", "true")
TABLE = "{rows: 16, interval_steps: 2, partitions: 2}"
PADDED = 1200  # four or five of the small market's requests, or 23 candidates of one
RAW_IDS = (*MORE, "--zero_collision", f"{{user_id: {TABLE}, item_id: {TABLE}}}")


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> Path:
    """Runs of one rank, ``one/<name>``, and of two, ``two/<name>``, and what they predict."""
    folder = tmp_path_factory.mktemp("runs")
    one, two, make = folder / "one", folder / "two", folder / "one" / "train_make"
    train_make(market, make)
    for method in METHODS:
        train_ranker(market, one / method, method, *MORE, make=make)
    train_half(market, folder / "half")
    train_ranker(market, one / "raw-ids", "id", *RAW_IDS)
    commands = [Command("train_make", make_flags(market, two / "train_make"))]
    for sharding in SHARDINGS:
        for method in METHODS:
            run_dir = two / f"{method}-{sharding}"
            flags = [*ranker_flags(market, run_dir, method, make), *MORE]
            plan = folder / f"{run_dir.name}.json"
            commands.append(Command("train_ranker", flags, sharding, str(plan)))
            for trained in (one / method, run_dir):
                flags = evaluate_flags(market, trained, sharding)
                commands.append(Command("evaluate", flags, sharding))
            commands.append(Command("predict", predict_flags(market, one / method), sharding))
    flags = [*half_flags(market, folder / "half"), "--resume", "true"]
    commands.append(Command("train_ranker", flags, plan=str(folder / "plan.json")))
    flags = [*ranker_flags(market, two / "raw-ids", "id"), *RAW_IDS]
    commands.append(Command("train_ranker", flags))
    commands += storage_commands(market, two, make)
    commands += long_commands(folder)
    run_on_two_ranks(folder, commands)
    return folder


def storage_commands(market: SmallMarket, folder: Path, make: Path) -> list[Command]:
    """Runs of each way to hold the item vectors, and what they predict."""
    commands = []
    for method in VECTOR_METHODS:
        for storage in STORAGES:
            run_dir, flags = folder / f"{method}-{storage}", ["--vector_storage", storage]
            train = [*ranker_flags(market, run_dir, method, make), *MORE, *flags]
            commands += [
                Command("train_ranker", train),
                Command("evaluate", [*evaluate_flags(market, run_dir, storage), *flags]),
            ]
    return commands


def long_commands(folder: Path) -> list[Command]:
    """A run on requests that come in pieces: what it learns, and what the one rank's run says."""
    market = write_small_market(folder / "long")
    lengthen(market, 60, 4, 11)
    alone, together = folder / "one" / "long", folder / "two" / "long"
    with small_batches(PADDED):
        train_ranker(market, alone, "simtier", *MORE)
        evaluate(market, alone, "--predictions", str(alone / "alone.parquet"))
        apps.predict.main(predict_flags(market, alone, "one-rank"))
    train = [*ranker_flags(market, together, "simtier"), *MORE]
    return [
        Command("train_ranker", train, padded=PADDED),
        Command("evaluate", evaluate_flags(market, alone, "long"), padded=PADDED),
        Command("predict", predict_flags(market, alone), padded=PADDED),
    ]


def evaluate_flags(market: SmallMarket, run_dir: Path, sharding: str) -> list[str]:
    file = run_dir / f"two-ranks-{sharding}.parquet"
    return [*market.flags, "--run_dir", str(run_dir), "--predictions", str(file)]


def predict_flags(market: SmallMarket, run_dir: Path, name: str = "two-ranks") -> list[str]:
    """Batches that leave a rank without requests now and then."""
    requests, file = market.data / "requests" / "test", run_dir / f"{name}-requests.parquet"
    flags = ["--run_dir", run_dir, "--requests", requests, "--output", file]
    return [*map(str, flags), "--batch_requests", "3"]


def half_flags(market: SmallMarket, run_dir: Path) -> list[str]:
    return [*ranker_flags(market, run_dir, "id"), *MORE]


def train_half(market: SmallMarket, run_dir: Path) -> None:
    """A run of two epochs that stops in the middle of its second."""
    with stopped_before(6):
        train_ranker(market, run_dir, "id", *MORE, "--checkpoint_steps", "5")


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run_dir, "step")]


def logits_in(file: Path) -> list[float]:
    return pq.read_table(file)["logit"].to_pylist()


def plan_in(file: Path) -> dict[str, str]:
    """Sharding type of each table."""
    return json.loads(file.read_text())


def test_make_learns_alike_on_one_rank_and_on_two(runs):
    alone, together = losses(runs / "one" / "train_make"), losses(runs / "two" / "train_make")
    assert len(alone) == 8
    assert together == pytest.approx(alone, rel=LOSS_TOLERANCE)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("method", METHODS)
def test_the_ranker_learns_alike_on_one_rank_and_on_two(method, sharding, runs):
    alone, together = runs / "one" / method, runs / "two" / f"{method}-{sharding}"
    assert set(plan_in(runs / f"{together.name}.json").values()) == {sharding}
    assert len(losses(alone)) == 8
    assert losses(together) == pytest.approx(losses(alone), rel=LOSS_TOLERANCE)
    for ours, theirs in zip(lines_of(together, "epoch"), lines_of(alone, "epoch"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=LOSS_TOLERANCE)
        for figure in ("train_auc", "test_auc"):
            assert ours[figure] == pytest.approx(theirs[figure], abs=1e-6)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_of_one_rank_predicts_alike_on_two(method, sharding, market, runs, tmp_path):
    run_dir = runs / "one" / method
    here = predictions(market, run_dir, tmp_path / "here.parquet")["logit"]
    there = logits_in(run_dir / f"two-ranks-{sharding}.parquet")
    assert there == pytest.approx(here, abs=1e-5)


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_of_two_ranks_predicts_alike_on_one(method, sharding, market, runs, tmp_path):
    run_dir = runs / "two" / f"{method}-{sharding}"
    measured_there = json.loads((run_dir / "metrics.json").read_text())
    there = logits_in(run_dir / f"two-ranks-{sharding}.parquet")
    here = predictions(market, run_dir, tmp_path / "here.parquet")["logit"]
    assert there == pytest.approx(here, abs=1e-5)
    measured_here = json.loads((run_dir / "metrics.json").read_text())
    assert measured_there["auc"] == pytest.approx(measured_here["auc"], abs=1e-6)
    assert measured_there["gauc"] == pytest.approx(measured_here["gauc"], abs=1e-6)
    alone = predictions(market, runs / "one" / method, tmp_path / "alone.parquet")["logit"]
    assert here == pytest.approx(alone, abs=LOGIT_TOLERANCE)


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_score_requests_into_the_file_that_one_writes(method, market, runs):
    run_dir = runs / "one" / method
    apps.predict.main(predict_flags(market, run_dir, "one-rank"))
    there, here = (
        pq.read_table(run_dir / f"{name}-requests.parquet").to_pydict()
        for name in ("two-ranks", "one-rank")
    )
    scores = [sum(table.pop("click_probabilities"), []) for table in (there, here)]
    assert there == here and len(here["user_id"]) == 25
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize("method", VECTOR_METHODS)
def test_vectors_in_the_memory_of_two_ranks_are_those_of_the_file_bit_for_bit(method, runs):
    mapped, sharded = (runs / "two" / f"{method}-{storage}" for storage in STORAGES)
    assert len(losses(mapped)) == 8 and losses(sharded) == losses(mapped)
    there = logits_in(sharded / "two-ranks-sharded.parquet")
    assert there == logits_in(mapped / "two-ranks-mapped.parquet")


def test_requests_in_pieces_are_learned_and_scored_alike_on_one_rank_and_on_two(runs):
    alone, together = runs / "one" / "long", runs / "two" / "long"
    assert len(losses(alone)) > 30
    assert losses(together) == pytest.approx(losses(alone), rel=LOSS_TOLERANCE)
    here, there = (
        pq.read_table(alone / name).to_pydict()
        for name in ("alone.parquet", "two-ranks-long.parquet")
    )
    assert there.pop("logit") == pytest.approx(here.pop("logit"), abs=1e-5)
    assert there == here and here["request"].count(4) == 60
    here, there = (
        pq.read_table(alone / f"{name}-requests.parquet").to_pydict()
        for name in ("one-rank", "two-ranks")
    )
    scores = [sum(table.pop("click_probabilities"), []) for table in (here, there)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert there == here and len(here["candidate_item_ids"][4]) == 60


def test_tables_of_raw_ids_learn_alike_on_one_rank_and_on_two(market, runs, tmp_path):
    alone, together = runs / "one" / "raw-ids", runs / "two" / "raw-ids"
    assert len(losses(alone)) == 8
    assert losses(together) == pytest.approx(losses(alone), rel=LOSS_TOLERANCE)
    scores = [predictions(market, run, tmp_path / "p.parquet") for run in (together, alone)]
    assert scores[0]["logit"] == pytest.approx(scores[1]["logit"], abs=LOGIT_TOLERANCE)


def test_a_run_goes_on_with_another_number_of_ranks(market, runs):
    whole, half = runs / "one" / "id", runs / "half"
    assert losses(half) == pytest.approx(losses(whole), rel=LOSS_TOLERANCE)
    assert [line["epoch"] for line in lines_of(half, "epoch")] == [1, 2]
    starts = json.loads((half / "environment.json").read_text())
    assert [start["world_size"] for start in starts] == [1, 2]
    assert [sum(map(len, start["devices"].values())) for start in starts] == [1, 2]
    assert evaluate(market, half)["log_loss"] == pytest.approx(
        evaluate(market, whole)["log_loss"], rel=LOSS_TOLERANCE
    )


def test_each_rank_of_each_start_has_its_say(runs):
    first, second = (
        (runs / "half" / "logs" / f"rank-0000{rank}.log").read_text().splitlines()
        for rank in range(2)
    )
    assert "started as rank 0 of 1 on " in first[0] and "ended by Stopped" in first[1]
    (again,) = (line for line in first if "started as rank 0 of 2 on " in line)
    assert first.index(again) > 1 and first[-1].endswith("done")
    assert "started as rank 1 of 2 on " in second[0] and second[-1].endswith("done")


def test_the_planner_places_every_table(runs):
    types = plan_in(runs / "plan.json")
    assert len(types) == 9  # of users' effects, too
    assert set(types.values()) <= set(SHARDINGS)
