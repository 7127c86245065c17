"""One table of several features, through encoding, batches and the ranker."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.helpers.kinds_market import TAGS, add_columns, bags, drawn, write_kinds_market
from tests.helpers.small_market import NUM_ITEMS, SmallMarket
from tests.ranking.small_ranker import Encoded, encode, ranker_of, spec_of
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.data.contract.features import NULL
from torchrec_mm.errors import InputError
from torchrec_mm.ranking.spec import spec_from_json, spec_to_json

SAID = """
tags: {table: words, min_count: 170}
brand: {table: words, min_count: 170}
device: {table: words, min_count: 170}
via: {table: words, min_count: 170}
candidate_source: {table: words, min_count: 170}
likes: {kind: bag, table: numbers}
topics: {table: numbers}
"""
WORDS = ("device", "brand", "tags", "via", "candidate_source")
ROWS = [3, 0, 7]


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> SmallMarket:
    market = write_kinds_market(tmp_path_factory.mktemp("market"))
    data = market.data
    (data / "features.yaml").write_text(SAID, encoding="utf-8")
    # A text that one column shows too rarely, and all together often enough.
    for folder, name in (("items", "brand"), ("requests/train", "device")):
        add_columns(data / folder, lambda n, rng, name=name: {name: drawn((*TAGS, None), n, rng)})
    topics = bags((7, 55), NUM_ITEMS, np.random.default_rng(0), pa.int64())
    add_columns(data / "items", lambda n, rng: {"topics": topics})
    return market


@pytest.fixture(scope="module")
def encoded(market) -> Encoded:
    return encode(market)


def flat(table: pa.Table, name: str) -> list:
    values = table[name].to_pylist()
    return sum((v or [] for v in values), []) if pa.types.is_list(table[name].type) else values


def test_the_vocabulary_is_of_what_all_columns_show_together(market, encoded):
    requests, items = (pq.read_table(market.data / f) for f in ("requests/train", "items"))
    shown = Counter(sum((flat(requests, n) for n in ("device", "via", "candidate_source")), []))
    in_training = Counter(
        flat(requests, "candidate_item_ids") + flat(requests, "behaviour_item_ids")
    )
    for row in items.select(["item_id", "brand", "tags"]).to_pylist():
        for value in (row["brand"], *(row["tags"] or [])):
            shown[value] += in_training[row["item_id"]]
    shown = +shown
    ids = {value: NULL if value is None else hash_text(value) for value in shown}
    known = sorted(ids[v] for v, count in shown.items() if count >= 170 or v is None)
    rare = sorted(ids[v] for v, count in shown.items() if count < 170 and v is not None)
    assert rare and len(known) > 3
    vocabularies = encoded.vocabularies
    groups = ("request", "item", "item_bag", "behaviour", "impression")
    for group, name in zip(groups, WORDS, strict=True):
        found = getattr(vocabularies, group)[name]
        assert found.known_ids.tolist() == known and found.rare_ids.tolist() == rare
        assert sorted(map(str, found.texts.to_pylist())) == sorted(map(str, shown))
    of_numbers = [vocabularies.request_bag["likes"], vocabularies.item_bag["topics"]]
    assert [each.known_ids.tolist() for each in of_numbers] == [[-3, 7, 11, 55]] * 2
    assert vocabularies.tables == dict.fromkeys(WORDS, "words") | dict.fromkeys(
        ("likes", "topics"), "numbers"
    )


def test_there_is_one_table_of_all_of_them(encoded):
    configs = ranker_of(spec_of("id", encoded)).bag_tables.embedding_bag_configs()
    assert {config.name: {*config.feature_names} for config in configs} == {
        "words_table": {*WORDS},
        "numbers_table": {"likes", "topics"},
    }
    assert {config.pooling.value for config in configs} == {"MEAN"}


@pytest.mark.parametrize("method", ["id", "simtier+make"])
@pytest.mark.parametrize("name", [*WORDS, "likes", "topics"])
def test_the_logit_depends_on_the_table_through_each_feature(name, method, encoded):
    spec = spec_of(method, encoded)
    ranker, batch = ranker_of(spec), encoded.batch(ROWS, method)
    pooled = ranker.bag_tables(batch.bags)
    place = list(pooled.keys()).index(name)
    values = pooled.values().detach().clone()
    before = ranker(batch)[1].logits
    values[:, place * 4 : place * 4 + 4] = 0
    other = type(pooled)(list(pooled.keys()), [4] * len(pooled.keys()), values)
    ranker.bag_tables = torch.nn.Identity()
    ranker.bag_tables.forward = lambda bags: other
    assert not torch.equal(before, ranker(batch)[1].logits)


def test_the_spec_keeps_which_features_share_a_table(encoded):
    spec = spec_of("muse", encoded)
    assert spec_from_json(spec_to_json(spec)) == spec
    assert "via" not in spec.shared and spec.shared["tags"] == "words"  # muse has no attributes
    with pytest.raises(InputError, match="this version"):
        spec_from_json(spec_to_json(spec) | {"shared_tables": {}})
