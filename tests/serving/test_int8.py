"""A scorer with tables in int8: near the exact scores, smaller, reloaded and changed by deltas."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.runs import train_make, train_ranker
from tests.online.following import follow, put_all, requests_of, same_bits, weights_of
from tests.serving.served import parsed, table_of
from torchrec_mm.errors import InputError
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.scorer import Scorer

pytestmark = pytest.mark.slow

# Of the logit, absolute; what the guide says of probabilities is less.
NEAR = 0.02
METHODS = ("id", "simtier", "simtier+make", "muse", "codes")
KEPT = ("--checkpoint_steps", "1", "--keep_checkpoints", "3")


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("int8")
    make = train_make(market, folder / "make")
    return {m: train_ranker(market, folder / m, m, *KEPT, make=make) for m in METHODS}


def opened(run: TrainedRun | Path, tables: str) -> Scorer:
    trained = run if isinstance(run, TrainedRun) else TrainedRun.open(run, "latest")
    vectors = open_vectors(trained, None, "mapped")
    latest = (lambda: vectors) if vectors else None
    return Scorer.open(trained, trained.items, latest, tables=tables)


def scores(scorer: Scorer, market) -> np.ndarray:
    """Logits of the test requests."""
    return scorer.logits(parsed(scorer, table_of(scorer, market.data / "requests" / "test")))


def test_scores_of_every_method_are_near_the_exact_ones_and_not_the_same(runs, market):
    for method, run_dir in runs.items():
        exact, found = (scores(opened(run_dir, tables), market) for tables in ("fp32", "int8"))
        difference = np.abs(found - exact).max()
        assert 0 < difference < NEAR, (method, difference)


def test_tables_take_a_byte_a_number_and_eight_a_row(runs):
    exact, held = (opened(runs["id"], tables) for tables in ("fp32", "int8"))
    wanted = {
        name: (len(tensor), tensor.shape[1] + 8)
        for name, tensor in weights_of(exact).items()
        if "embedding_bags" in name
    }
    found = weights_of(held)
    assert wanted and {name: tuple(found[name].shape) for name in wanted} == wanted
    assert all(found[name].dtype == torch.uint8 for name in wanted)


def test_another_checkpoint_takes_the_place_of_one_in_int8(runs):
    first, *_, last = list_checkpoints(runs["id"] / "checkpoints")
    trained = TrainedRun.open(runs["id"], "latest")
    current = Current(
        replace(trained, checkpoint=first.folder), partial(opened, tables="int8"), Measures()
    )
    assert current.checkpoint == first.folder.name
    assert current.take_newest() and current.checkpoint == last.folder.name
    assert same_bits(weights_of(current.scorer), weights_of(opened(trained, "int8")))


def test_deltas_leave_what_a_whole_checkpoint_in_int8_has(market, tmp_path):
    start = train_ranker(market, tmp_path / "start", "id")
    put_all(tmp_path / "spool", requests_of(market, 0, 10))
    run_dir = follow(tmp_path / "spool", start, tmp_path / "run")
    first, *_, last = list_checkpoints(run_dir / "checkpoints")
    trained = TrainedRun.open(run_dir, "published")
    load = partial(opened, tables="int8")
    current = Current(replace(trained, checkpoint=first.folder), load, Measures())
    before = weights_of(current.scorer)
    assert current.take_newest() and current.checkpoint == last.folder.name
    assert current._measures.loads.labels("taken")._value.get() == 0  # by deltas alone
    after = weights_of(current.scorer)
    assert same_bits(after, weights_of(opened(trained, "int8"))) and not same_bits(after, before)


def test_what_has_no_tables_to_hold_in_int8_is_refused(market, tmp_path):
    rows = {name: {"rows": 16, "partitions": 1} for name in ("user_id", "item_id")}
    raw = train_ranker(market, tmp_path / "raw", "id", "--zero_collision", json.dumps(rows))
    with pytest.raises(InputError, match="tables must be fp32 for a ranker with tables of raw ids"):
        opened(raw, "int8")
    with pytest.raises(InputError, match="tables must be fp32 for method bias, got int8"):
        opened(train_ranker(market, tmp_path / "bias", "bias"), "int8")
