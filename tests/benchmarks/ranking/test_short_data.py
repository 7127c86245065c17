"""The simulated market that the short benchmark learns from."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.benchmarks.conftest import SHORT
from torchrec_mm.benchmarks.ranking.short_data import (
    ShortDataConfig,
    draw_items,
    requests_table,
    short_data,
    true_auc,
)
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.simulation.market.market import simulate


def requests(folder, split):
    return pq.read_table(folder / "market" / "requests" / split).to_pylist()


def test_requests_have_few_candidates_and_short_histories_of_the_past(short_folder):
    everything = requests(short_folder, "train") + requests(short_folder, "test")
    assert len(everything) == pytest.approx(SHORT["requests"], rel=0.1)
    candidates = [len(request["candidate_item_ids"]) for request in everything]
    assert set(candidates) <= set(range(1, 9)) and np.mean(candidates) > 7
    assert [len(request["labels"]) for request in everything] == candidates
    lengths = [len(request["behaviour_item_ids"]) for request in everything]
    assert max(lengths) == SHORT["behaviours"]
    ends = max(request["timestamp"] for request in requests(short_folder, "train"))
    assert ends < min(request["timestamp"] for request in requests(short_folder, "test"))


def test_candidates_labels_and_true_logits_are_of_the_same_impressions():
    config = ShortDataConfig(**{**SHORT, "candidates": 3})
    market = simulate(
        draw_items(config),
        num_users=20,
        num_impressions=1500,
        num_searches=1,
        days=12,
        test_days=2,
        seed=0,
    )
    chosen = np.arange(len(market.requests.user)) % 3 == 1
    table, oracle = requests_table(market, chosen, config)
    expected, start = [], 0
    for number, length in enumerate(market.requests.lengths.tolist()):
        if chosen[number]:
            expected += range(start, start + min(length, 3))
        start += length
    flat = {
        name: table[name].combine_chunks().flatten().tolist() for name in table.column_names[3:]
    }
    item_ids = market.catalogue.item_ids[market.requests.item[expected]]
    assert flat["candidate_item_ids"] == item_ids.tolist()
    assert flat["labels"] == market.requests.label[expected].tolist()
    assert oracle.tolist() == market.requests.parts["oracle"][expected].tolist()


def test_models_are_told_user_item_and_one_attribute(short_folder):
    meta = json.loads((short_folder / "encoded" / "meta.json").read_text())
    assert meta["request_features"] == ["user_id"] and meta["behaviour_features"] == []
    assert meta["item_features"] == ["item_id", "category"]


def test_every_item_has_a_vector_and_those_that_look_alike_are_near(short_folder):
    catalogue = draw_items(ShortDataConfig(**SHORT))
    vectors = ItemVectors.open(short_folder / "vectors")
    rows = vectors.rows(catalogue.item_ids)
    assert vectors.width == 128 and (rows >= 0).all()
    cosine = vectors.values[rows] @ vectors.values[rows].T
    shared = (catalogue.attributes[:, None] == catalogue.attributes[None]).sum(axis=-1)
    means = [cosine[shared == number].mean() for number in range(4)]
    assert means == sorted(means) and means[3] > means[0] + 0.3


def test_the_rule_behind_the_clicks_ranks_them_better_than_chance(short_folder):
    assert 0.6 < true_auc(short_folder) < 1


def test_make_is_trained_for_all_its_epochs(short_folder):
    metrics = (short_folder / "make" / "run" / "metrics.jsonl").read_text().splitlines()
    epochs = [line for line in map(json.loads, metrics) if "epoch" in line and "loss" in line]
    impressions = EncodedRequests(short_folder / "encoded", "train").num_impressions
    assert epochs[-1]["epoch"] == 5 and epochs[-1]["impressions"] == impressions


def test_data_that_is_there_is_used_again_and_of_another_size_refused(short_folder):
    before = {path: path.stat().st_mtime_ns for path in short_folder.rglob("*")}
    with short_data(ShortDataConfig(work_dir=short_folder, **SHORT)) as again:
        assert {path: path.stat().st_mtime_ns for path in again.rglob("*")} == before
    with pytest.raises(InputError, match="work_dir must hold data of .*'candidates': 5"):
        with short_data(ShortDataConfig(work_dir=short_folder, candidates=5, **SHORT)):
            pass


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [("items", 99, "at least 100"), ("requests", 0, "at least 1"), ("seed", -1, "at least 0")],
)
def test_a_size_that_cannot_be_drawn_is_refused(field, value, rule):
    with pytest.raises(ValueError, match=f"{field} must be {rule}, got {value}"):
        ShortDataConfig(**{field: value})
