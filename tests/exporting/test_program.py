"""The exported program says what the scorer says, of every method and all kinds of columns."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.exporting.importer import Importer
from tests.helpers.kinds_market import add_columns, write_kinds_market
from tests.helpers.runs import train_make, train_ranker
from tests.helpers.small_market import ITEM_IDS, SmallMarket, write_small_market
from tests.serving.served import predicted
from torchrec_mm.errors import InputError
from torchrec_mm.exporting import export
from torchrec_mm.exporting.export import Trial, trial_of
from torchrec_mm.exporting.lists import newest_of, pairs_in_order
from torchrec_mm.exporting.program import Program
from torchrec_mm.kernels.build import plain_versions
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.scorer import load_network

pytestmark = pytest.mark.slow

METHODS = ("id", "vector", "simscore", "simtier", "make", "simtier+make", "codes", "muse")
RAW = json.dumps({name: {"rows": 16, "partitions": 2} for name in ("user_id", "item_id")})


@pytest.fixture(scope="module", params=["plain", "kinds"])
def market(request, tmp_path_factory) -> SmallMarket:
    """The second with columns of every kind and further sequences."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "plain":
        return write_small_market(folder)
    market = write_kinds_market(folder)
    for split in ("train", "test"):
        add_columns(market.data / "requests" / split, sequences)
    return market


def sequences(count: int, rng: np.random.Generator) -> dict:
    return {
        f"{event}_item_ids": [rng.choice(ITEM_IDS, n).tolist() for n in rng.integers(0, 5, count)]
        for event in ("cart", "passed")
    }


@pytest.fixture(scope="module")
def runs(market, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    make = train_make(market, folder / "make_itself")
    runs = {m: train_ranker(market, folder / m, m, make=make) for m in METHODS}
    return runs | {"raw": train_ranker(market, folder / "raw", "id", "--zero_collision", RAW)}


def tried(run_dir: Path) -> tuple[TrainedRun, Trial]:
    trained = TrainedRun.open(run_dir, "latest")
    vectors = open_vectors(trained, None, "mapped")
    model = load_network(trained, (lambda: vectors) if vectors else None)
    return trained, trial_of(trained, model, vectors)


def program_of(trained: TrainedRun, trial: Trial) -> Program:
    """Not exported, which takes longer."""
    return Program(trial.model.ranker.network, trained.config["max_behaviours"])


@pytest.mark.parametrize("name", [*METHODS, "raw"])
def test_it_says_what_the_scorer_says(name, runs):
    trained, trial = tried(runs[name])
    with plain_versions():
        assert trial.difference(program_of(trained, trial)) < 1e-6
    scores = trial.model.logits(trial.arrays, trial.items)
    assert len({*scores.round(4)}) > len(scores) / 2  # there is something to get wrong


@pytest.mark.parametrize("name", ["simtier+make", "muse", "codes", "raw"])
def test_who_reads_the_files_alone_gets_what_predict_says(name, market, runs, tmp_path):
    trained, trial = tried(runs[name])
    importer = Importer.of(trained, trial, market, tmp_path)
    with plain_versions(), torch.no_grad():
        found = importer.score(program_of(trained, trial), market.data / "requests" / "test")
    wanted = predicted(runs[name], market.data / "requests" / "test", tmp_path / "scores.parquet")
    assert found == pytest.approx(wanted, abs=1e-6)


def test_each_input_matters(runs):
    trained, trial = tried(runs["simtier+make"])
    given, program = trial.inputs(trial.arrays), program_of(trained, trial)
    assert list(given) == list(trial.wanted)
    with plain_versions(), torch.no_grad():
        whole = program(**given)
        for name, values in given.items():
            changed = ~values if values.dtype == torch.bool else values.flip(0)
            assert not torch.equal(program(**{**given, name: changed}), whole), name


def test_what_lies_in_padding_changes_nothing(runs):
    trained, trial = tried(runs["simtier+make"])
    given, program = trial.inputs(trial.arrays), program_of(trained, trial)
    longer = {
        name: torch.nn.functional.pad(
            values,
            (*[0, 0] * (values.ndim - 1 - trial.wanted[name].shape.index(size)), 0, 3),
            value=-1 if values.dtype == torch.int64 else torch.nan,
        )
        for name, values in given.items()
        for size in ("candidates", "behaviours", "further_behaviours")
        if size in trial.wanted[name].shape
    }
    with plain_versions(), torch.no_grad():
        whole = program(**given)
        found = program(**{**given, **longer})
    assert torch.equal(found[:, : whole.shape[1]], whole)
    assert not found[:, whole.shape[1] :].any()


def test_a_program_that_says_something_else_is_refused(runs, monkeypatch):
    _, trial = tried(runs["id"])

    def wrong(**given):
        return torch.full(given["candidates"].shape, 0.5)

    with pytest.raises(InputError, match="program.pt2 must score as the run does, to 1e-05, got"):
        export.checked(trial, wrong, export.PROGRAM)
    with pytest.raises(InputError, match="got a difference of inf"):
        export.checked(trial, lambda **given: wrong(**given) * torch.nan, export.PROGRAM)


LISTS = st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5)


@given(LISTS, st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=60)
def test_lists_in_order_are_those_of_plain_python(lists, most, candidates):
    padded = torch.tensor([each + [-1] * (6 - len(each)) for each in lists])
    newest = newest_of(padded, most)
    kept = [each[-most:] for each in lists]
    assert newest.lengths.tolist() == [len(each) for each in kept]
    values = [value for each in kept for value in each]
    assert newest.in_order(newest.values)[: len(values)].tolist() == values
    places = torch.arange(6).expand(len(lists), 6)[..., None]
    wanted = [place for each in lists for place in range(len(each))[-most:]]
    assert newest.in_order(newest.taken(places))[: len(values), 0].tolist() == wanted
    pairs = torch.arange(len(lists) * candidates * most).view(len(lists), candidates, most)
    wanted = [
        pairs[request, candidate, place].item()
        for request, each in enumerate(kept)
        for candidate in range(candidates)
        for place in range(len(each))
    ]
    assert pairs_in_order(pairs, newest)[: len(wanted)].tolist() == wanted
