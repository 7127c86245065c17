"""The ranker on one device: every method, padding, requests and candidates kept apart."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.ranking.small_ranker import MAKE, Encoded, ranker_of, spec_of
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.strides import pad_bags
from torchrec_mm.ranking.collators import rows_of_vectors
from torchrec_mm.ranking.ranker import Ranker, table_name
from torchrec_mm.ranking.spec import METHODS, spec_from_json

ROWS = list(range(12))
EVERY_METHOD = pytest.mark.parametrize("method", [m for m in METHODS if m != "muse"])


@pytest.fixture
def batch(encoded: Encoded) -> RequestBatch:
    return encoded.batch(ROWS)


def ranker(method: str, encoded: Encoded) -> Ranker:
    return ranker_of(spec_of(method, encoded))


@torch.no_grad()
def logits_of(model: Ranker, batch: RequestBatch) -> Tensor:
    """Logits of the real candidates, one after another."""
    _, outputs = model(batch)
    return outputs.logits[batch.candidate_mask]


def test_the_batch_of_these_tests_has_all_there_is_to_get_wrong(batch):
    assert not batch.candidate_mask.all() and not batch.behaviour_mask.all()
    assert (batch.behaviour_mask.sum(1) == 0).any()
    assert not batch.vector_mask.all()
    assert len(batch.behaviour_attribute_index) == 2
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
def test_the_loss_is_the_mean_log_loss_of_the_real_candidates(method, encoded, batch):
    loss, outputs = ranker(method, encoded)(batch)
    losses = []
    for logit, label, is_real in zip(
        outputs.logits.flatten().tolist(),
        batch.labels.flatten().tolist(),
        batch.candidate_mask.flatten().tolist(),
        strict=True,
    ):
        if is_real:
            losses.append(math.log1p(math.exp(-logit if label else logit)))
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert outputs.loss.item() == loss.item()
    assert not outputs.logits.requires_grad and not outputs.loss.requires_grad
    assert outputs.rows.tolist() == ROWS


@EVERY_METHOD
def test_padding_is_invisible_whatever_it_points_at(method, encoded, batch):
    model = ranker(method, encoded)
    generator = torch.Generator().manual_seed(0)
    slots = len(batch.vector_mask)

    def scrambled(index: Tensor, mask: Tensor, most: int) -> Tensor:
        junk = torch.randint(0, most, index.shape, generator=generator)
        return torch.where(mask, index, junk)

    changed = replace(
        batch,
        candidate_index=scrambled(batch.candidate_index, batch.candidate_mask, slots),
        behaviour_index=scrambled(batch.behaviour_index, batch.behaviour_mask, slots),
        behaviour_attribute_index=scrambled(
            batch.behaviour_attribute_index, batch.behaviour_mask, 2
        ),
        labels=scrambled(batch.labels, batch.candidate_mask, 2),
        vectors=torch.where(batch.vector_mask[:, None], batch.vectors, 1e6),
    )
    torch.testing.assert_close(logits_of(model, changed), logits_of(model, batch))
    torch.testing.assert_close(model(changed)[0], model(batch)[0])


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
    alone = torch.cat([logits_of(model, encoded.batch([row])) for row in ROWS])
    torch.testing.assert_close(logits_of(model, batch), alone, atol=1e-5, rtol=1e-4)


@EVERY_METHOD
def test_candidates_in_another_order_get_their_logits_in_that_order(method, encoded, batch):
    model = ranker(method, encoded)
    order = torch.randperm(batch.labels.shape[1], generator=torch.Generator().manual_seed(1))
    changed = replace(
        batch,
        candidate_index=batch.candidate_index[:, order],
        candidate_mask=batch.candidate_mask[:, order],
        labels=batch.labels[:, order],
    )
    before, after = model(batch)[1].logits[:, order], model(changed)[1].logits
    mask = changed.candidate_mask
    torch.testing.assert_close(after[mask], before[mask])


@EVERY_METHOD
def test_vectors_matter_to_all_methods_but_id(method, encoded, batch):
    model = ranker(method, encoded)
    mirrored = replace(batch, vectors=batch.vectors.flip(-1) * torch.linspace(-1, 1, 8))
    same = torch.allclose(logits_of(model, mirrored), logits_of(model, batch))
    assert same == (method == "id")


def test_method_id_runs_without_vectors(encoded):
    model = ranker("id", encoded)
    without = encoded.batch(ROWS, with_vectors=False)
    assert torch.equal(logits_of(model, without), logits_of(model, encoded.batch(ROWS)))


@EVERY_METHOD
@pytest.mark.parametrize(
    "table", ["user_id", "city", "page", "item_id", "shop_id", "category_id", "stars", "action"]
)
def test_every_table_matters(method, table, encoded, batch):
    model = ranker(method, encoded)
    before = logits_of(model, batch)
    tables = model.item_id_tables if table == "item_id" else model.feature_tables
    with torch.no_grad():
        tables.embedding_bags[table_name(table)].weight[1:] += 1
    assert not torch.allclose(logits_of(model, batch), before)


def test_pairs_without_a_vector_on_either_side_are_not_counted_in_tiers(encoded, batch):
    model = ranker("simtier", encoded)
    seen = []
    model.network.tiers.register_forward_hook(lambda module, inputs, counts: seen.append(counts))
    model(batch)
    has_vector = rows_of_vectors(encoded.data.items, encoded.vectors) >= 0
    for place, row in enumerate(ROWS):
        request = encoded.arrays.take(np.array([row]))
        candidates, behaviours = request.candidates.values, request.behaviours.values
        for number, candidate in enumerate(candidates):
            expected = sum(has_vector[b] for b in behaviours) if has_vector[candidate] else 0
            assert seen[0][place, number].sum() == expected


@pytest.mark.parametrize(
    ("silenced", "changed"),
    [
        ("mlp.layers.0", "attention.score.weight"),  # only the interest is left to differ
        ("mlp.logit", "mlp.layers.1.weight"),  # only the last hidden layer
        ("mlp.layers.1", "mlp.layers.0.bias"),  # only the first hidden layer
    ],
)
def test_makes_interest_and_each_of_its_hidden_layers_join(silenced, changed, encoded, batch):
    model = ranker("make", encoded)
    with torch.no_grad():
        for parameter in model.network.make.get_submodule(silenced).parameters():
            parameter.zero_()
        before = logits_of(model, batch)
        model.network.make.get_parameter(changed).mul_(-2)
    assert not torch.allclose(logits_of(model, batch), before)


def test_makes_logit_is_added_to_the_rankers(encoded, batch):
    model = ranker("make", encoded)
    before = logits_of(model, batch)
    with torch.no_grad():
        model.network.make.mlp.logit.bias.add_(2.5)
    moved = logits_of(model, batch) - before
    known = batch.vector_mask[batch.candidate_index][batch.candidate_mask]
    torch.testing.assert_close(moved, 2.5 * known.float(), atol=1e-5, rtol=1e-5)


def test_the_first_column_of_user_context_and_candidate_is_a_bias(encoded, batch):
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
    torch.testing.assert_close(logits_of(model, batch), torch.tensor(expected))


def test_an_untrained_ranker_starts_at_the_base_rate(encoded, batch):
    model = ranker_of(spec_of("id", encoded))
    fresh = Ranker(spec_of("id", encoded)).network
    model.network.load_state_dict(fresh.state_dict())
    with torch.no_grad():
        for tables in (model.item_id_tables, model.feature_tables):
            for bag in tables.embedding_bags.values():
                bag.weight.zero_()
        model.network.mlp.logit.bias.zero_()
    rates = torch.sigmoid(logits_of(model, batch))
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


def test_a_joined_make_never_drops_out(encoded, batch):
    spec = replace(spec_of("make", encoded), make=replace(MAKE, dropout=0.5))
    model = ranker_of(spec).train()
    assert torch.equal(logits_of(model, batch), logits_of(model, batch))


@pytest.mark.parametrize("spoil", [{"tables": {}}, {"surprise": 1}])
def test_a_description_of_another_version_is_refused_in_one_line(spoil, encoded):
    described = json.loads(json.dumps(asdict(spec_of("id", encoded))))
    assert spec_from_json(described) == spec_of("id", encoded)
    with pytest.raises(InputError, match="model.json must describe a ranker of this version"):
        spec_from_json(described | spoil)
