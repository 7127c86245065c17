"""Further behaviour sequences in the network: each like the behaviours, with weights of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.small_market import (
    EVENTS,
    add_sequences,
    read_parquet,
    rewrite,
    write_small_market,
)
from tests.ranking.small_ranker import Encoded, encode, ranker_of, spec_of
from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.kernels.build import SWITCH
from torchrec_mm.ranking.collators import attended_behaviours, collator_for_ranker
from torchrec_mm.ranking.parts import Interest, Recent, Tiers
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.scene import Scene
from torchrec_mm.ranking.sequences import PARTS_OF_SEQUENCES, FurtherTiers
from torchrec_mm.ranking.spec import METHODS, RankerSpec

ROWS = list(range(14))
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
TIERED = ("simtier", "simtier+make", "muse")


@pytest.fixture(scope="module")
def further(tmp_path_factory) -> Encoded:
    market = write_small_market(tmp_path_factory.mktemp("further"))
    add_sequences(market)
    return encode(market)


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> Encoded:
    """The behaviours come a second time, as carts; they have no attributes."""
    market = write_small_market(tmp_path_factory.mktemp("twice"))
    for split in ("train", "test"):
        folder = market.data / "requests" / split
        carts = read_parquet(folder)["behaviour_item_ids"]
        rewrite(folder, stars=None, action=None, cart_item_ids=carts)
    return encode(market)


@torch.no_grad()
def logits_of(model: Ranker, batch: RequestBatch) -> Tensor:
    return model(batch)[1].logits


def scene_of(model: Ranker, batch: RequestBatch, spec: RankerSpec) -> Scene:
    """What the parts see, projected vectors beside the items where the method has them."""
    embeddings = model.item_id_tables(batch.item_ids), model.feature_tables(batch.features)
    scene = Scene.of(batch, spec, embeddings, model.network.behaviour_projection)
    if spec.has("vector"):
        model.network.parts[1].join(model.network, scene)
    return scene


@EVERY_METHOD
def test_a_sequence_is_attended_to_and_counted_as_the_behaviours_are(method, twice):
    """With the same items and the same weights."""
    spec = spec_of(method, twice)
    model, batch = ranker_of(spec), twice.batch(ROWS, method)
    network, scene = model.network, scene_of(model, batch, spec)
    if method == "muse":
        network.further_query[0].load_state_dict(network.recent_query.state_dict())
        part = Recent()
    else:
        network.further_attention[0].load_state_dict(network.attention.state_dict())
        part = Interest(cosine=method == "simscore")
    ours = PARTS_OF_SEQUENCES[method][0].join(network, scene).blocks
    for mine, wanted in zip(ours, part.join(network, scene).blocks, strict=True):
        assert torch.equal(mine, wanted) and mine.any()
    assert (FurtherTiers in map(type, PARTS_OF_SEQUENCES[method])) == (method in TIERED)
    if method in TIERED:
        with torch.no_grad():
            network.further_tier_weight[0] = network.tier_weight
        (ours,) = FurtherTiers().join(network, scene).blocks
        assert torch.equal(ours, Tiers().join(network, scene).blocks[0]) and ours.any()


@EVERY_METHOD
def test_every_weight_learns_and_each_sequence_has_its_own(method, further):
    model = ranker_of(spec_of(method, further))
    model(further.batch(ROWS, method))[0].backward()
    names = [name for name, _ in model.named_parameters() if "further_" in name]
    assert len(names) == 2 * {"muse": 1, "simscore": 6}.get(method, 5) + (method in TIERED)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@EVERY_METHOD
@pytest.mark.parametrize("event", EVENTS)
def test_each_sequence_matters_in_every_method(event, method, further):
    model = ranker_of(spec_of(method, further))
    before = logits_of(model, further.batch(ROWS, method))
    other = further.arrays.sequences[event]
    other = Jagged((other.values + 1) % len(further.data.items.item_ids), other.offsets)
    sequences = {**further.arrays.sequences, event: other.where(other.values >= 0)}
    changed = replace(further, arrays=replace(further.arrays, sequences=sequences))
    after = logits_of(model, changed.batch(ROWS, method))
    has_some = other.take(np.array(ROWS))[0].lengths > 0
    request = further.batch(ROWS, method).request.numpy()
    assert ((after != before).numpy() == has_some[request]).all()


@EVERY_METHOD
def test_requests_of_a_batch_do_not_see_each_other_nor_their_order(method, further):
    model = ranker_of(spec_of(method, further))
    batch = further.batch(ROWS, method)
    together = logits_of(model, batch)
    alone = torch.cat([logits_of(model, further.batch([row], method)) for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    parts = together.split(batch.candidate_offsets.diff().tolist())
    backwards = logits_of(model, further.batch(ROWS[::-1], method))
    torch.testing.assert_close(backwards, torch.cat(parts[::-1]), atol=1e-5, rtol=1e-4)
    assert 0 in batch.sequences[0].offsets.diff() and 0 in batch.sequences[1].offsets.diff()


@EVERY_METHOD
def test_kernels_and_plain_pytorch_give_the_same_logits(method, further, monkeypatch):
    compiled = logits_of(ranker_of(spec_of(method, further)), further.batch(ROWS, method))
    monkeypatch.setenv(SWITCH, "0")
    plain = logits_of(ranker_of(spec_of(method, further)), further.batch(ROWS, method))
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)


@EVERY_METHOD
def test_a_batch_without_candidates_or_behaviours_learns_nothing_and_harms_nothing(method, further):
    model, spec = ranker_of(spec_of(method, further)), spec_of(method, further)
    vectors = MappedVectors(further.vectors) if spec.vector_width else None
    make = further.frozen(model.network.make) if spec.make else None
    collator = collator_for_ranker(spec, further.items_of(spec), vectors, 50, make)
    nothing = {event: Jagged(np.empty(0, np.int32), np.zeros(2, np.int64)) for event in EVENTS}
    for row in ROWS:
        request = further.arrays.take(np.array([row]))
        loss, _ = model(collator(request, 1.0, masked=True))
        loss.backward()
        assert loss == 0
        assert model(collator(replace(request, sequences=nothing), 1.0))[0].isfinite()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_all_sequences_look_items_up_in_one_go(further):
    batch, spec = further.batch(ROWS, "id"), spec_of("id", further)
    without = replace(spec, sequences=())
    alone = collator_for_ranker(without, further.data.items, None, 50)(
        further.arrays.take(np.array(ROWS)), 1.0
    )
    assert alone.sequences == () and batch.item_ids.keys() == alone.item_ids.keys()
    row_of = batch.item_ids["item_id"].values()[batch.item_index[0].long()]
    items = further.data.items
    for event, in_batch in zip(EVENTS, batch.sequences, strict=True):
        share = further.arrays.sequences[event].take(np.array(ROWS))[0]
        assert row_of[in_batch.slots.long()].tolist() == items.rows[0][share.values].tolist()
        assert in_batch.offsets.tolist() == share.offsets.tolist()
    slots = batch.item_index.shape[1] - len(batch.labels)
    distinct = [further.arrays.candidates, further.arrays.behaviours]
    distinct += [*further.arrays.sequences.values()]
    seen = np.concatenate([lists.take(np.array(ROWS))[0].values for lists in distinct])
    assert slots == len(np.unique(seen))


def test_the_newest_of_each_sequence_are_attended_to(further):
    spec = spec_of("simscore", further)
    vectors = MappedVectors(further.vectors)
    batch = collator_for_ranker(spec, further.items_of(spec), vectors, 2)(
        further.arrays.take(np.array(ROWS)), 1.0
    )
    lengths = batch.candidate_offsets.diff()
    for event, in_batch in zip(EVENTS, batch.sequences, strict=True):
        newest = further.arrays.sequences[event].take(np.array(ROWS))[0].newest(2)[0]
        assert in_batch.offsets.tolist() == newest.offsets.tolist() and in_batch.most == 2
        assert len(in_batch.cosine) == int((lengths * in_batch.offsets.diff()).sum())


@pytest.mark.parametrize("method", METHODS)
def test_only_what_a_method_asks_for_is_in_its_batches(method, further):
    for sequence in further.batch(ROWS, method).sequences:
        assert (sequence.tiers is not None) == (method in TIERED)
        assert (sequence.cosine is not None) == (method == "simscore")


def test_padding_them_all_counts_for_the_limits_of_a_batch(further):
    spec = spec_of("id", further)
    assert attended_behaviours(spec, 50) == 150
    assert attended_behaviours(spec_of("muse", further), 50) == 150 + spec.kept
    assert attended_behaviours(replace(spec, sequences=()), 50) == 50
