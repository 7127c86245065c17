"""Multi-hot features in a ranker: pooled as they say, used wherever their owner is."""

import dataclasses

import pytest
import torch

from tests.helpers.kinds_market import write_kinds_market
from tests.ranking.small_ranker import Encoded, encode, ranker_of, spec_of
from torchrec_mm.errors import InputError
from torchrec_mm.ranking.lookups import Lookups
from torchrec_mm.ranking.spec import spec_from_json, spec_to_json

METHODS = ("id", "vector", "simscore", "simtier+make", "codes", "muse")
ROWS = [3, 0, 7]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> Encoded:
    return encode(write_kinds_market(tmp_path_factory.mktemp("market")))


def pooled(bag: list[int], weight: torch.Tensor, pooling: str) -> torch.Tensor:
    """By hand, one value after the other."""
    total = torch.zeros(weight.shape[1])
    for row in bag:
        total = total + weight[row]
    return total / max(len(bag), 1) if pooling == "mean" else total


def test_bags_are_pooled_as_they_say(encoded):
    batch, spec = encoded.batch(ROWS, "id"), spec_of("id", encoded)
    ranker = ranker_of(spec)
    found, summed = ranker.bag_tables(batch.bags), ranker.summed_tables(batch.bags)
    lookups = Lookups.of(batch, spec, [found, summed])
    bags = {**ranker.bag_tables.embedding_bags, **ranker.summed_tables.embedding_bags}
    weights = {n: bags[f"{n}_table"].weight for n in ("likes", "tags", "topics")}
    likes = encoded.arrays.request_bags["likes"].take(batch.rows.numpy())[0]
    for place in range(len(ROWS)):
        bag = likes.values[likes.offsets[place] : likes.offsets[place + 1]].tolist()
        expected = pooled(bag, weights["likes"], "sum")
        assert summed["likes"][place].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    share = encoded.arrays.take(batch.rows.numpy())
    for name in ("tags", "topics"):
        of_items, bags = lookups.attribute(name), encoded.data.items.bags[name]
        at_impressions = of_items[batch.candidates.long()]
        for item, row in zip(share.candidates.values, at_impressions, strict=True):
            bag = bags.values[bags.offsets[item] : bags.offsets[item + 1]].tolist()
            assert row.tolist() == pytest.approx(
                pooled(bag, weights[name], "mean").tolist(), abs=1e-6
            )


def test_a_batch_holds_them_at_their_real_lengths(encoded):
    bags = encoded.batch(ROWS, "id").bags
    assert bags.keys() == ["likes", "tags", "topics"]
    lengths = bags.lengths().view(3, -1)
    own = encoded.arrays.request_bags["likes"].lengths[ROWS]
    assert lengths[0, : len(ROWS)].tolist() == own.tolist() and lengths[0, len(ROWS) :].sum() == 0
    assert lengths.max() > 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["likes", "tags", "topics"])
def test_every_method_learns_from_every_bag(method, name, encoded):
    spec = spec_of(method, encoded)
    ranker = ranker_of(spec)
    loss, _ = ranker(encoded.batch(ROWS, method, make=ranker.network.make))
    loss.backward()
    tables = ranker.summed_tables if name == "likes" else ranker.bag_tables
    gradient = tables.embedding_bags[f"{name}_table"].weight.grad
    assert gradient[2:].abs().sum() > 0


@pytest.mark.parametrize("method", ["id", "muse"])
def test_the_bags_of_behaviours_matter_too(method, encoded):
    ranker, batch = ranker_of(spec_of(method, encoded)), encoded.batch(ROWS, method)
    others = set(range(batch.bags.stride())) - set(batch.candidates.tolist())
    place = batch.bags.keys().index("tags")
    lengths = batch.bags.lengths().view(3, -1)[place]
    changed = next(slot for slot in others if lengths[slot])
    values = batch.bags.values().clone()
    values[batch.bags.offsets()[place * batch.bags.stride() + changed]] = 1
    before = ranker(batch)[1].logits
    kjt = type(batch.bags)(batch.bags.keys(), values, lengths=batch.bags.lengths())
    after = ranker(dataclasses.replace(batch, bags=kjt))[1].logits
    assert not torch.equal(before, after)


def test_the_spec_keeps_pooling_and_length(encoded):
    spec = spec_of("id", encoded)
    assert spec_from_json(spec_to_json(spec)) == spec
    assert spec.bags["likes"].pooling == "sum" and spec.bags["tags"].mean_length > 0
    described = spec_to_json(spec)
    described["bags"]["tags"]["length"] = 3
    with pytest.raises(InputError, match="model.json must describe a ranker of this version"):
        spec_from_json(described)


def test_without_bags_a_model_says_nothing_of_them(encoded):
    spec = spec_of("id", encoded)
    item = {name: rows for name, rows in spec.tables.item.items() if name not in spec.bags}
    tables = dataclasses.replace(spec.tables, item=item)
    plain = dataclasses.replace(spec, tables=tables, bags={})
    assert "bags" not in spec_to_json(plain)
    assert ranker_of(dataclasses.replace(plain)).bag_tables is None
