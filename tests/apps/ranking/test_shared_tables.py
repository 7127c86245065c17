"""Columns that share a table, through the commands."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import apps.export_tables
import apps.plan
from tests.helpers.kinds_market import NEW_TOPIC, TOPICS, write_kinds_market
from tests.helpers.runs import evaluate, lines_of, ranker_flags, stopped_before, train_ranker
from tests.helpers.small_market import SmallMarket
from tests.helpers.two_ranks import Command, run_on_two_ranks

SAID = """
likes: {kind: bag, pooling: sum, table: numbers}
topics: {pooling: sum, table: numbers}
tags: {table: words}
brand: {table: words}
via: {table: words}
"""
MORE = ("--epochs", "2", "--checkpoint_steps", "2")


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    market = write_kinds_market(tmp_path_factory.mktemp("market"))
    (market.data / "features.yaml").write_text(SAID, encoding="utf-8")
    return market


@pytest.fixture(scope="module")
def run(market, tmp_path_factory) -> Path:
    return train_ranker(market, tmp_path_factory.mktemp("runs") / "id", "id", *MORE)


def test_one_table_is_planned_exported_and_evaluated(market, run, tmp_path, capsys):
    assert evaluate(market, run)["impressions"] > 0
    capsys.readouterr()
    apps.plan.main(["--train", str(run / "config.yaml"), "--device", "cpu", "--json"])
    plan = {t["table"]: t for t in json.loads(capsys.readouterr().out)["tables"]}
    assert {"numbers_table", "words_table"} < plan.keys() and "likes_table" not in plan
    assert plan["words_table"]["mean_length"] > 2  # one of brand, one of via, some tags
    apps.export_tables.main(["--run_dir", str(run), "--output", str(tmp_path / "tables")])
    table = pq.read_table(tmp_path / "tables" / "shared" / "numbers.parquet")
    assert table["id"].to_pylist() == [None, None, *sorted(TOPICS)]
    assert NEW_TOPIC not in TOPICS and pa.types.is_integer(table["id"].type)


def test_a_run_that_stopped_and_two_ranks_learn_what_one_does(market, run, tmp_path):
    with stopped_before(3):
        train_ranker(market, tmp_path / "half", "id", *MORE)
    half = train_ranker(market, tmp_path / "half", "id", *MORE, "--resume", "true")
    assert lines_of(half, "step") == lines_of(run, "step")
    flags = ranker_flags(market, tmp_path / "two", "id")
    run_on_two_ranks(tmp_path, [Command("train_ranker", [*flags, *MORE])])
    alone, together = (
        [line["loss"] for line in lines_of(path, "step")] for path in (run, tmp_path / "two")
    )
    assert together == pytest.approx(alone, rel=1e-5)
