"""What the page says of a score: terms that add up, and scores without what is left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.exporting.test_program import sequences
from tests.helpers.kinds_market import add_columns, write_kinds_market
from tests.helpers.runs import train_make, train_ranker
from tests.helpers.small_market import write_small_market
from tests.serving.served import parsed, scorer_of, table_of
from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.page import explain as explaining
from torchrec_mm.serving.page.explain import explain, sigmoid
from torchrec_mm.serving.scorer import Scorer

NEAR = 1e-5
METHODS = ("bias", "id", "vector", "simscore", "simtier", "make", "simtier+make", "codes", "muse")
PARTS = {
    "bias": set(),
    "id": {"attention to the past"},
    "codes": {"attention to the past"},
    "vector": {"attention to the past", "item vectors"},
    "simscore": {"attention to the past", "cosine of each pair"},
    "simtier": {"attention to the past", "tiers of likeness"},
    "make": {"attention to the past", "MAKE"},
    "simtier+make": {"attention to the past", "tiers of likeness", "MAKE"},
    "muse": {"attention to the past", "tiers of likeness", "attention to the most alike"},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A market, and by method the folder of a run, without users' effects, which are of vectors."""
    folder = tmp_path_factory.mktemp("plain")
    return trained_on(write_small_market(folder), folder, METHODS, "--effects", "0")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """The same with columns of every kind, further sequences and users' effects."""
    folder = tmp_path_factory.mktemp("kinds")
    market = write_kinds_market(folder)
    for split in ("train", "test"):
        add_columns(market.data / "requests" / split, sequences)
    return trained_on(market, folder, OTHERS)


def trained_on(market, folder: Path, methods: tuple[str, ...], *flags: str):
    make = train_make(market, folder / "make_itself")
    more = {m: () if m == "bias" else ("--epochs", "2", *flags) for m in methods}
    return market, {m: train_ranker(market, folder / m, m, *more[m], make=make) for m in methods}


def asked(market, scorer: Scorer):
    table = table_of(scorer, market.data / "requests" / "test")
    return scorer.encoder(parsed(scorer, table))


OTHERS = ("simscore", "simtier+make", "muse")
EVERY = [("plain", m) for m in METHODS] + [("kinds", m) for m in OTHERS]


@pytest.mark.slow
@pytest.mark.parametrize(("which", "method"), EVERY)
def test_terms_add_up_to_the_log_odds_and_parts_are_the_methods(which, method, request):
    market, runs = request.getfixturevalue(which)
    scorer = scorer_of(runs[method])
    arrays, items = asked(market, scorer)
    explained = explain(scorer.model, arrays, items)
    assert explained.logits == pytest.approx(scorer.model.logits(arrays, items), abs=NEAR)
    assert sum(explained.terms.values()) == pytest.approx(explained.logits, abs=NEAR)
    assert {*explained.without} == PARTS[method]
    for name, terms in explained.terms.items():
        assert terms.shape == explained.logits.shape and np.isfinite(terms).all(), name
    for name, without in explained.without.items():
        assert np.abs(without - explained.probabilities).max() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize(("which", "method"), [each for each in EVERY if each[1] != "bias"])
def test_what_no_term_says_is_what_the_mlp_says(which, method, request):
    market, runs = request.getfixturevalue(which)
    scorer = scorer_of(runs[method])
    arrays, items = asked(market, scorer)
    said = []
    last = scorer.model.ranker.network.mlp.logit
    hook = last.register_forward_hook(lambda _, given, found: said.append(found[:, 0].numpy()))
    terms = explain(scorer.model, arrays, items).terms
    hook.remove()
    assert terms[explaining.REST] == pytest.approx(said[0], abs=NEAR)
    request_of, shown = arrays.candidates.owners(), items.item_ids[arrays.candidates.values]
    assert one_each(terms[explaining.USER], request_of)
    if which == "plain":  # else impressions have features of their own
        assert one_each(terms[explaining.ITEM], shown)
        assert not one_each(terms[explaining.ITEM], request_of)


def one_each(values: np.ndarray, whose: np.ndarray) -> bool:
    """Whether all values of one are the same."""
    return all(np.ptp(values[whose == one]) < NEAR for one in np.unique(whose))


@pytest.mark.parametrize("method", ["id", "simscore", "codes"])
def test_without_attention_is_as_the_same_request_without_a_past(plain, method):
    market, runs = plain
    scorer = scorer_of(runs[method])
    arrays, items = asked(market, scorer)
    nothing = Jagged(np.empty(0, np.int32), np.zeros(len(arrays) + 1, np.int64))
    empty = replace(
        arrays,
        behaviours=nothing,
        behaviour_rows={name: rows[:0] for name, rows in arrays.behaviour_rows.items()},
        sequences=dict.fromkeys(arrays.sequences, nothing),
    )
    without = explain(scorer.model, arrays, items).without["attention to the past"]
    assert without == pytest.approx(sigmoid(scorer.model.logits(empty, items)), abs=NEAR)


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("simtier", "tiers of likeness"),
        ("simscore", "cosine of each pair"),
        ("make", "MAKE"),
        ("vector", "item vectors"),
    ],
)
def test_without_a_part_is_as_if_no_item_had_a_vector(plain, method, part, tmp_path):
    market, runs = plain
    trained = TrainedRun.open(runs[method], "latest")
    others = np.arange(5)  # no item of the market has one
    write_item_vectors(
        tmp_path / "v", others, np.eye(5, 8), dtype="float32", encoder="scl", modality="image"
    )
    unknown = Scorer.open(trained, trained.items, lambda: ItemVectors.open(tmp_path / "v"))
    scorer = scorer_of(runs[method])
    arrays, items = asked(market, scorer)
    found = explain(scorer.model, arrays, items)
    assert found.without[part] == pytest.approx(
        sigmoid(unknown.model.logits(arrays, items)), abs=NEAR
    )
    if found.tiers is not None:
        counted = found.tiers.sum(1)
        assert 0 < counted.max() <= arrays.behaviours.lengths.max()


def test_rates_are_the_users_and_the_items(plain):
    market, runs = plain
    scorer = scorer_of(runs["bias"])
    arrays, items = asked(market, scorer)
    terms = explain(scorer.model, arrays, items).terms
    assert {*terms} == {explaining.BASE, explaining.USER, explaining.ITEM}
    of_users = {}
    for user, term in zip(
        arrays.user_ids[arrays.candidates.owners()], terms[explaining.USER], strict=True
    ):
        assert of_users.setdefault(user, term) == pytest.approx(term, abs=NEAR)
    assert len({*np.round(list(of_users.values()), 4)}) > 1
