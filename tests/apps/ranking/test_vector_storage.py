"""Item vectors in the ranks' memory are the mapped ones, bit for bit, in every command."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import apps.train_ranker
from tests.helpers.runs import (
    evaluate,
    lines_of,
    predictions,
    ranker_flags,
    train_make,
    train_ranker,
)
from torchrec_mm.parallel.sharded_vectors import ShardedVectors

METHODS = ("vector", "simtier", "muse")
SHARDED = ("--vector_storage", "sharded")


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """How many vectors each look-up in the ranks' memory was for."""
    numbers, gather = [], ShardedVectors.gather
    noted = lambda self, rows: numbers.append(len(rows)) or gather(self, rows)  # noqa: E731
    monkeypatch.setattr(ShardedVectors, "gather", noted)
    return numbers


def figures(run_dir: Path) -> list[tuple]:
    """What each step and each epoch came to."""
    lines = lines_of(run_dir, "loss")
    return [(line.get("step"), line["loss"], line.get("test_auc")) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_ranker_learns_and_scores_the_same_from_the_ranks_memory(method, market, tmp_path, asked):
    more = ("--epochs", "2", "--test_auc", "true")
    mapped = train_ranker(market, tmp_path / "mapped", method, *more)
    here = predictions(market, mapped, tmp_path / "mapped.parquet")
    assert asked == []
    sharded = train_ranker(market, tmp_path / "sharded", method, *more, *SHARDED)
    each = 2  # what the method goes by, and the items of impressions for users' effects
    assert len(asked) == each * (2 * (4 + 2) + 4)  # batches of training, of test, of effects
    there = predictions(market, sharded, tmp_path / "there.parquet")
    assert there == here
    assert figures(sharded) == figures(mapped)
    in_training = len(asked)
    evaluate(market, sharded, *SHARDED, "--predictions", str(tmp_path / "again.parquet"))
    assert len(asked) > in_training
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "there.parquet").read_bytes()


def test_what_make_says_is_the_same_from_the_ranks_memory(market, tmp_path, asked):
    make = train_make(market, tmp_path / "make")
    mapped = train_ranker(market, tmp_path / "mapped", "simtier+make", make=make)
    assert asked == []
    sharded = train_ranker(market, tmp_path / "sharded", "simtier+make", *SHARDED, make=make)
    each = 3  # vectors to search, what MAKE makes of them, and those of users' effects
    assert len(asked) == each * (4 + 4)  # batches of training and of effects
    assert figures(sharded) == figures(mapped)
    here = predictions(market, mapped, tmp_path / "mapped.parquet")
    evaluate(market, sharded, *SHARDED, "--predictions", str(tmp_path / "there.parquet"))
    assert pq.read_table(tmp_path / "there.parquet").to_pydict() == here
    for run_dir in (mapped, sharded):
        assert not list(run_dir.glob(".*"))


def test_make_learns_the_same_from_the_ranks_memory(market, tmp_path, asked):
    mapped = train_make(market, tmp_path / "mapped")
    sharded = train_make(market, tmp_path / "sharded", *SHARDED)
    assert asked
    assert figures(sharded) == figures(mapped)


def test_without_vectors_there_is_nothing_to_shard(market, tmp_path, refused):
    flags = [*ranker_flags(market, tmp_path / "run", "id"), *SHARDED]
    assert refused(apps.train_ranker.main, flags) == (
        "error: vector_storage must be mapped with method id, which uses no vectors, got sharded"
    )
