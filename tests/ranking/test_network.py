"""The ranker on one device: every method, its parts, requests kept apart."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.ranking.small_ranker import MAKE, Encoded, ranker_of, spec_of
from torchrec_mm.data.stream.bags import pad_bags
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.errors import InputError
from torchrec_mm.kernels.build import SWITCH
from torchrec_mm.ranking.collators import collator_for_ranker, rows_of_vectors
from torchrec_mm.ranking.ranker import Ranker, table_name
from torchrec_mm.ranking.spec import METHODS, spec_from_json

ROWS = list(range(12))
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def batch(encoded: Encoded, request: pytest.FixtureRequest) -> RequestBatch:
    """Of the test's method, simtier where it has none."""
    called = getattr(request.node, "callspec", None)
    return encoded.batch(ROWS, called.params.get("method", "simtier") if called else "simtier")


def ranker(method: str, encoded: Encoded) -> Ranker:
    return ranker_of(spec_of(method, encoded))


@torch.no_grad()
def logits_of(model: Ranker, batch: RequestBatch) -> Tensor:
    """(I,) logits, request after request."""
    return model(batch)[1].logits


def test_the_batch_of_these_tests_has_all_there_is_to_get_wrong(batch):
    assert len(batch.candidate_offsets.diff().unique()) > 1
    assert 0 in batch.behaviour_offsets.diff()
    assert not batch.vector_mask.all()
    assert len(batch.behaviour_attributes) == 2
    assert batch.features.stride() == len(ROWS) and batch.item_ids.stride() > len(ROWS)


@EVERY_METHOD
def test_every_trainable_weight_learns(method, encoded, batch):
    model = ranker(method, encoded)
    loss, _ = model(batch)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith("network.make."):
            assert not parameter.requires_grad
        else:
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name


@EVERY_METHOD
def test_the_loss_is_the_mean_log_loss_of_the_candidates(method, encoded, batch):
    loss, outputs = ranker(method, encoded)(batch)
    pairs = zip(outputs.logits.tolist(), batch.labels.tolist(), strict=True)
    losses = [math.log1p(math.exp(-logit if label else logit)) for logit, label in pairs]
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert outputs.loss.item() == loss.item()
    assert not outputs.logits.requires_grad and not outputs.loss.requires_grad
    assert outputs.rows.tolist() == ROWS
    lengths = encoded.arrays.take(np.array(ROWS)).candidates.lengths
    assert outputs.offsets.diff().tolist() == lengths.tolist()


@EVERY_METHOD
def test_a_batch_without_candidates_learns_nothing_and_harms_nothing(method, encoded):
    """One that is only there to keep a rank in step."""
    model, spec = ranker(method, encoded), spec_of(method, encoded)
    vectors = MappedVectors(encoded.vectors) if spec.vector_width else None
    make = encoded.frozen(model.network.make) if spec.make else None
    collator = collator_for_ranker(spec, encoded.items_of(spec), vectors, 50, make)
    for row in ROWS:  # one of them has no behaviour, too
        masked = collator(encoded.arrays.take(np.array([row])), 1.0, masked=True)
        loss, outputs = model(masked)
        loss.backward()
        assert loss == 0 and not len(outputs.logits) and outputs.offsets.tolist() == [0, 0]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:  # all have one: ranks average them together
            assert not parameter.grad.any(), name


@EVERY_METHOD
def test_empty_bags_at_the_end_of_a_batch_are_invisible(method, encoded, batch):
    model = ranker(method, encoded)
    changed = replace(
        batch,
        item_ids=pad_bags(batch.item_ids, 90),
        features=pad_bags(batch.features, 80),
    )
    torch.testing.assert_close(logits_of(model, changed), logits_of(model, batch))


@EVERY_METHOD
def test_requests_of_a_batch_do_not_see_each_other(method, encoded, batch):
    model = ranker(method, encoded)
    alone = torch.cat([logits_of(model, encoded.batch([row], method)) for row in ROWS])
    torch.testing.assert_close(logits_of(model, batch), alone, atol=1e-5, rtol=1e-4)


@EVERY_METHOD
def test_requests_in_another_order_get_their_logits_in_that_order(method, encoded, batch):
    model = ranker(method, encoded)
    parts = logits_of(model, batch).split(batch.candidate_offsets.diff().tolist())
    backwards = logits_of(model, encoded.batch(ROWS[::-1], method))
    torch.testing.assert_close(backwards, torch.cat(parts[::-1]), atol=1e-5, rtol=1e-4)


@EVERY_METHOD
def test_kernels_and_plain_pytorch_give_the_same_logits(method, encoded, batch, monkeypatch):
    compiled = logits_of(ranker(method, encoded), batch)
    monkeypatch.setenv(SWITCH, "0")
    plain = logits_of(ranker(method, encoded), encoded.batch(ROWS, method))
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)


@EVERY_METHOD
@pytest.mark.parametrize(
    "table", ["user_id", "city", "page", "item_id", "shop_id", "category_id", "stars", "action"]
)
def test_every_table_matters(method, table, encoded, batch):
    model = ranker(method, encoded)
    if method == "muse" and table in ("stars", "action"):
        assert table not in batch.features.keys()  # no tables for what it does not look at
        return
    before = logits_of(model, batch)
    tables = model.item_id_tables if table == "item_id" else model.feature_tables
    with torch.no_grad():
        tables.embedding_bags[table_name(table)].weight[1:] += 1
    assert not torch.allclose(logits_of(model, batch), before)


def test_pairs_without_a_vector_on_either_side_are_not_counted_in_tiers(encoded, batch):
    has_vector = rows_of_vectors(encoded.data.items, encoded.vectors) >= 0
    expected = []
    for row in ROWS:
        request = encoded.arrays.take(np.array([row]))
        known = sum(has_vector[behaviour] for behaviour in request.behaviours.values)
        expected += [known if has_vector[item] else 0 for item in request.candidates.values]
    assert batch.search.tiers.sum(1).tolist() == expected


@pytest.mark.parametrize(
    ("silenced", "changed"),
    [
        ("mlp.layers.0", "attention.score.weight"),  # only the interest is left to differ
        ("mlp.logit", "mlp.layers.1.weight"),  # only the last hidden layer
        ("mlp.layers.1", "mlp.layers.0.bias"),  # only the first hidden layer
    ],
)
def test_makes_interest_and_each_of_its_hidden_layers_join(silenced, changed, encoded):
    model = ranker("make", encoded)
    make = model.network.make
    with torch.no_grad():
        for parameter in make.get_submodule(silenced).parameters():
            parameter.zero_()
        before = logits_of(model, encoded.batch(ROWS, "make", make=make))
        make.get_parameter(changed).mul_(-2)
    assert not torch.allclose(logits_of(model, encoded.batch(ROWS, "make", make=make)), before)


def test_makes_logit_is_added_to_the_rankers(encoded):
    model = ranker("make", encoded)
    before = logits_of(model, encoded.batch(ROWS, "make"))
    with torch.no_grad():
        model.network.make.mlp.logit.bias.add_(2.5)
    batch = encoded.batch(ROWS, "make", make=model.network.make)
    moved = logits_of(model, batch) - before
    known = batch.vector_mask[batch.candidates]
    torch.testing.assert_close(moved, 2.5 * known.float(), atol=1e-5, rtol=1e-5)


def test_the_first_column_of_user_context_and_candidate_is_a_bias(encoded):
    """With the MLP silenced, what is left are the bias columns and the base rate."""
    model = ranker("id", encoded)
    with torch.no_grad():
        model.network.mlp.logit.weight.zero_()
        model.network.mlp.logit.bias.zero_()
        model.network.base_logit.zero_()
    biases = {
        config.feature_names[0]: tables.embedding_bags[config.name].weight[:, 0].tolist()
        for tables in (model.item_id_tables, model.feature_tables)
        for config in tables.embedding_bag_configs()
    }
    items, expected = encoded.data.items, []
    for row in ROWS:
        one = encoded.arrays.take(np.array([row]))
        request = sum(biases[name][rows[0]] for name, rows in one.request_rows.items())
        for item in one.candidates.values:
            rows = zip(items.features, items.rows[:, item], strict=True)
            expected.append(request + sum(biases[name][row] for name, row in rows))
    torch.testing.assert_close(logits_of(model, encoded.batch(ROWS, "id")), torch.tensor(expected))


def test_an_untrained_ranker_starts_at_the_base_rate(encoded):
    model = ranker_of(spec_of("id", encoded))
    fresh = Ranker(spec_of("id", encoded)).network
    model.network.load_state_dict(fresh.state_dict())
    with torch.no_grad():
        for tables in (model.item_id_tables, model.feature_tables):
            for bag in tables.embedding_bags.values():
                bag.weight.zero_()
        model.network.mlp.logit.bias.zero_()
    rates = torch.sigmoid(logits_of(model, encoded.batch(ROWS, "id")))
    torch.testing.assert_close(rates, torch.full_like(rates, 0.4))


@EVERY_METHOD
def test_a_spec_comes_back_from_json_as_it_was(method, encoded):
    spec = spec_of(method, encoded)
    assert spec_from_json(json.loads(json.dumps(asdict(spec)))) == spec


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("id", {"method": "din"}, "method must be one of id, vector, .*, got din"),
        ("id", {"make": MAKE}, "make must be given exactly when method has it, got id"),
        ("simtier+make", {"make": None}, "make must be given exactly when .*, got simtier.make"),
    ],
)
def test_a_spec_whose_parts_do_not_go_together_is_refused(method, changes, words, encoded):
    with pytest.raises(ValueError, match=words):
        replace(spec_of(method, encoded), **changes)


def test_a_make_of_another_depth_is_refused(encoded):
    told = r"hidden must have as many layers as MAKE's, 2, got \(7,\)"
    with pytest.raises(InputError, match=told):
        replace(spec_of("make", encoded), hidden=(7,))


def test_a_joined_make_never_drops_out(encoded):
    make = replace(MAKE, dropout=0.5).build().train()
    one, other = (encoded.batch(ROWS, "make", make=make) for _ in range(2))
    assert torch.equal(one.made, other.made)


def test_only_what_a_method_asks_for_is_in_its_batches(encoded):
    found = {method: encoded.batch(ROWS, method) for method in METHODS}
    assert [m for m, b in found.items() if b.vectors is not None] == ["vector"]
    assert [m for m, b in found.items() if b.made is not None] == ["make", "simtier+make"]
    searched = {m: b.search for m, b in found.items() if b.search is not None}
    assert [m for m, s in searched.items() if s.cosine is not None] == ["simscore"]
    assert [m for m, s in searched.items() if s.kept_index is not None] == ["muse"]
    tiered = [m for m, s in searched.items() if s.tiers is not None]
    assert tiered == ["simtier", "simtier+make", "muse"]
    assert [m for m, b in found.items() if b.vector_mask is None] == ["id", "codes"]


def test_checkpoints_keep_the_names_of_their_tensors(encoded):
    attention = ["product", "behaviour.weight", "behaviour.bias", "target.weight", "score.weight"]
    mlp = [f"mlp.{x}.{y}" for x in ("layers.0", "layers.1", "logit") for y in ("weight", "bias")]
    of_id = ["base_logit", "behaviour_projection.weight", "behaviour_projection.bias", *mlp]
    of_id += [f"attention.{name}" for name in attention]
    of_muse = ["base_logit", "recent_query.weight", "kept_query.weight", "mix", "tier_weight"]
    projection = ["vector_projection.weight", "vector_projection.bias"]
    expected = {
        "id": of_id,
        "vector": [*of_id, *projection],
        "simscore": [*of_id, "attention.side"],
        "simtier": [*of_id, "tier_weight"],
        "muse": [*of_muse, "request_layer.weight", *mlp],
    }
    for method, names in expected.items():
        assert sorted(ranker(method, encoded).network.state_dict()) == sorted(names)
    make = [f"make.{name}" for name in MAKE.build().state_dict()]
    names = ranker("simtier+make", encoded).network.state_dict()
    assert sorted(names) == sorted([*of_id, "tier_weight", *make])


@pytest.mark.parametrize("spoil", [{"tables": {}}, {"surprise": 1}])
def test_a_description_of_another_version_is_refused_in_one_line(spoil, encoded):
    described = json.loads(json.dumps(asdict(spec_of("id", encoded))))
    assert spec_from_json(described) == spec_of("id", encoded)
    with pytest.raises(InputError, match="model.json must describe a ranker of this version"):
        spec_from_json(described | spoil)
