"""Single ids by the way that GPUs have are learned, saved and scored as by the CPU's."""

import json
from pathlib import Path

import pytest
import torch

import apps.export_tables
from tests.helpers.kinds_market import write_kinds_market
from tests.helpers.runs import (
    evaluate,
    lines_of,
    predictions,
    ranker_flags,
    stopped_before,
    train_make,
    train_ranker,
)
from tests.helpers.small_market import SmallMarket
from tests.helpers.two_ranks import Command, ids_by_rows, run_on_two_ranks
from torchrec_mm.ranking.spec import METHODS

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="states gloo ranks on a CPU")

TOLERANCE = 1e-5  # of losses, which are summed in another order
TABLE = "{rows: 16, interval_steps: 2, partitions: 2}"
RAW_IDS = ("--zero_collision", f"{{user_id: {TABLE}}}")
APART = ("--tables", "{item_id: {sharding: row_wise}, city: {sharding: table_wise}}")


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    """Columns of every kind: bags, numbers, text, features of impressions."""
    return write_kinds_market(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def make(market, tmp_path_factory) -> Path:
    return train_make(market, tmp_path_factory.mktemp("make") / "run")


def losses(run_dir: Path) -> list[float]:
    return [line["loss"] for line in lines_of(run_dir, "step")]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_the_same(method, market, make, tmp_path):
    train_ranker(market, tmp_path / "here", method, make=make)
    with ids_by_rows():
        train_ranker(market, tmp_path / "rows", method, make=make)
    assert len(losses(tmp_path / "rows")) == 4
    assert losses(tmp_path / "rows") == pytest.approx(losses(tmp_path / "here"), rel=TOLERANCE)
    files = [tmp_path / f"{name}.parquet" for name in ("here", "rows")]
    there, here = (
        predictions(market, tmp_path / file.stem, file)["logit"] for file in reversed(files)
    )
    assert there == pytest.approx(here, abs=1e-4)


def test_tables_of_raw_ids_learn_the_same_beside_them(market, tmp_path):
    train_ranker(market, tmp_path / "here", "id", *RAW_IDS)
    with ids_by_rows():
        train_ranker(market, tmp_path / "rows", "id", *RAW_IDS)
    assert losses(tmp_path / "rows") == pytest.approx(losses(tmp_path / "here"), rel=TOLERANCE)


@pytest.mark.parametrize("rows_first", [True, False])
def test_a_run_goes_on_the_other_way(rows_first, market, tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    two = ("--epochs", "2")
    train_ranker(market, whole, "simtier", *two)
    ways = [lambda: train_ranker(market, half, "simtier", *two, "--resume", "true")] * 2

    def begin() -> None:
        with stopped_before(6):
            train_ranker(market, half, "simtier", *two, "--checkpoint_steps", "3")

    ways[0] = begin
    for by_rows, go in zip((rows_first, not rows_first), ways, strict=True):
        if by_rows:
            with ids_by_rows():
                go()
        else:
            go()
    assert losses(half) == pytest.approx(losses(whole), rel=TOLERANCE)


def test_checkpoints_plans_and_exports_are_the_same_files(market, tmp_path):
    runs = tmp_path / "here", tmp_path / "rows"
    train_ranker(market, runs[0], "id")
    with ids_by_rows():
        train_ranker(market, runs[1], "id")
    assert (runs[0] / "plan.json").read_bytes() == (runs[1] / "plan.json").read_bytes()
    for run in runs:
        apps.export_tables.main(["--run_dir", str(run), "--output", str(run / "tables")])
    files = [
        {path.relative_to(run): path.stat().st_size for path in (run / "tables").rglob("*")}
        for run in runs
    ]
    assert files[0] == files[1] and len(files[0]) > 3


def test_two_ranks_learn_what_one_does_and_go_on_with_its_checkpoints(market, make, tmp_path):
    alone, together, half = (tmp_path / name for name in ("alone", "together", "half"))
    train_ranker(market, alone, "simtier+make", "--epochs", "2", make=make)
    flags = [*ranker_flags(market, half, "simtier+make", make), "--epochs", "2"]
    with stopped_before(6):
        train_ranker(
            market, half, "simtier+make", "--epochs", "2", "--checkpoint_steps", "3", make=make
        )
    fresh = [*ranker_flags(market, together, "simtier+make", make), "--epochs", "2", *APART]
    plan = tmp_path / "plan.json"
    run_on_two_ranks(
        tmp_path,
        [
            Command("train_ranker", fresh, plan=str(plan), by_rows=True),
            Command("train_ranker", [*flags, "--resume", "true"], by_rows=True),
        ],
    )
    assert set(json.loads(plan.read_text()).values()) == {"row_wise", "table_wise"}
    for run in (together, half):
        assert len(losses(run)) == 8
        assert losses(run) == pytest.approx(losses(alone), rel=TOLERANCE)
    assert evaluate(market, together)["auc"] == pytest.approx(evaluate(market, alone)["auc"], 1e-4)
