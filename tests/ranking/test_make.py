"""MAKE on batches of requests, and frozen, where batches are made."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.small_market import EVENTS, add_sequences, write_small_market
from tests.ranking.small_ranker import MAKE, Encoded, encode, spec_of
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.folds import folds_of
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.errors import InputError
from torchrec_mm.nn.make import Make, MakeFeatures
from torchrec_mm.ranking.collators import (
    collator_for_make,
    collator_for_ranker,
    rows_of_vectors,
)
from torchrec_mm.ranking.frozen_make import open_projected, project_vectors
from torchrec_mm.ranking.make import MakeRanker, unit_vectors

ROWS = list(range(12))


def make() -> Make:
    torch.manual_seed(0)
    return MAKE.build()


def make_batch(encoded: Encoded) -> RequestBatch:
    """What MAKE is trained on."""
    collator = collator_for_make(encoded.data.items, MappedVectors(encoded.vectors), 50)
    share = encoded.arrays.take(np.array(ROWS))
    return collator(share, 1 / len(share.labels))


@pytest.fixture
def batch(encoded: Encoded) -> RequestBatch:
    return make_batch(encoded)


@torch.no_grad()
def definition(module: Make, encoded: Encoded, events: Sequence[str] = ()) -> MakeFeatures:
    """``Make`` on one request after another, all its items with zeros for no vector.

    ``events``: of the further sequences that it looks at.
    """
    rows = rows_of_vectors(encoded.data.items, encoded.vectors)
    parts = []
    for row in ROWS:
        one = encoded.arrays.take(np.array([row]))
        further = [one.sequences[event] for event in events]
        lists = [rows[items.values] for items in (one.candidates, one.behaviours, *further)]
        lists = [np.append(of, -1)[None] if not len(of) else of[None] for of in lists]
        vectors = [torch.from_numpy(encoded.vectors.gather(of)[0]).float() for of in lists]
        masks = [torch.from_numpy(of >= 0) for of in lists]
        besides = list(zip(vectors[2:], masks[2:], strict=True))
        parts.append(module.eval()(*vectors[:2], *masks[:2], besides))
    return MakeFeatures(
        torch.cat([part.interest[0] for part in parts]),
        [torch.cat([part.hidden[i][0] for part in parts]) for i in range(len(MAKE.hidden))],
        torch.cat([part.logit[0] for part in parts]),
    )


def test_a_batch_gives_what_the_definition_gives_request_by_request(encoded, batch):
    ranker = MakeRanker(MAKE)
    expected = definition(ranker.make, encoded).logit
    torch.testing.assert_close(ranker(batch)[1].logits, expected, atol=1e-5, rtol=1e-4)


def test_frozen_features_are_those_of_the_definition(encoded):
    features = definition(make(), encoded)
    expected = [features.interest, *features.hidden, features.logit[:, None]]
    made = encoded.batch(ROWS, "make", make=make()).made
    torch.testing.assert_close(made, torch.cat(expected, dim=1), atol=1e-5, rtol=1e-4)


def test_a_candidate_without_a_vector_gets_zeros_everywhere(encoded):
    batch = encoded.batch(ROWS, "make")
    known = batch.vector_mask[batch.candidates]
    assert not known.all() and not batch.made[~known].any() and batch.made[known].any(1).all()


def test_what_is_frozen_does_not_follow_what_goes_on_learning(encoded):
    module = make()
    frozen = encoded.frozen(module)
    with torch.no_grad():
        module.mlp.logit.bias.add_(1)
    assert not torch.equal(frozen.make.mlp.logit.bias, module.mlp.logit.bias)


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_the_projected_table_is_the_projection_of_every_vector(
    dtype, encoded, tmp_path, monkeypatch
):
    monkeypatch.setattr("torchrec_mm.ranking.frozen_make.VALUES_AT_ONCE", 3 * MAKE.vector_width)
    values = np.asarray(encoded.vectors.values)
    if dtype == "int8":
        values = (values * 127).astype(np.int8)
    vectors = open_projected(encoded.vectors, save(tmp_path / "vectors.npy", values))
    module = make()
    project_vectors(module, vectors, tmp_path / "projected.npy")
    projected = open_projected(vectors, tmp_path / "projected.npy")
    expected = module.eval().project(unit_vectors(torch.from_numpy(values)))
    assert projected.width == MAKE.width and len(projected) == len(encoded.vectors)
    torch.testing.assert_close(torch.from_numpy(np.array(projected.values)), expected.detach())
    ids = encoded.data.items.item_ids
    assert np.array_equal(projected.rows(ids), encoded.vectors.rows(ids))


def save(path, values: np.ndarray):
    np.save(path, values)
    return path


def test_the_scale_of_vectors_does_not_matter():
    vectors = torch.randint(-127, 128, (5, 8), dtype=torch.int8)
    torch.testing.assert_close(unit_vectors(vectors), unit_vectors(vectors.float() / 127))
    assert not unit_vectors(torch.zeros(1, 8)).any()


def test_every_weight_of_make_learns_from_clicks(batch):
    torch.manual_seed(0)
    ranker = MakeRanker(MAKE)
    loss, outputs = ranker(batch)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in ranker.parameters())
    assert outputs.logits.shape == batch.labels.shape


def gradients(ranker: MakeRanker, batch: RequestBatch) -> dict[str, Tensor]:
    ranker.zero_grad()
    ranker(batch)[0].backward()
    return {name: parameter.grad.clone() for name, parameter in ranker.named_parameters()}


def test_kernels_and_plain_pytorch_give_the_same_gradients(encoded, batch, monkeypatch):
    ranker = MakeRanker(MAKE)
    compiled = gradients(ranker, batch)
    monkeypatch.setenv("TORCHREC_MM_KERNELS", "0")
    plain = gradients(ranker, make_batch(encoded))
    torch.testing.assert_close(compiled, plain, atol=1e-6, rtol=1e-4)


def test_make_needs_no_ids(batch):
    assert batch.item_ids is None and batch.features is None


def test_make_drops_out_in_training_alone(batch):
    torch.manual_seed(0)
    ranker = MakeRanker(replace(MAKE, dropout=0.5))
    assert not torch.equal(ranker(batch)[0], ranker(batch)[0])
    ranker.eval()
    assert torch.equal(ranker(batch)[0], ranker(batch)[0])


def test_checkpoints_of_make_keep_the_names_of_their_tensors():
    assert list(MakeRanker(MAKE).state_dict()) == [
        f"make.{name}"
        for name in (
            "projection.weight",
            "projection.bias",
            "attention.product",
            "attention.side",
            "attention.behaviour.weight",
            "attention.behaviour.bias",
            "attention.target.weight",
            "attention.score.weight",
            "mlp.layers.0.weight",
            "mlp.layers.0.bias",
            "mlp.layers.1.weight",
            "mlp.layers.1.bias",
            "mlp.logit.weight",
            "mlp.logit.bias",
        )
    ]


THREE = replace(MAKE, folds=3)


def folded_batch(encoded: Encoded, spoiled: int | None = None) -> RequestBatch:
    """What the three MAKEs learn from; ``spoiled``: a fold whose labels are all turned round."""
    source = MappedVectors(encoded.vectors)
    collator = collator_for_make(encoded.data.items, source, 50, THREE.folds)
    share = encoded.arrays.take(np.array(ROWS))
    if spoiled is not None:
        labels = share.labels.copy()
        is_spoiled = folds_of(share.rows, THREE.folds)[share.candidates.owners()] == spoiled
        assert is_spoiled.any() and not is_spoiled.all()
        labels[is_spoiled] = 1 - labels[is_spoiled]
        share = replace(share, labels=labels)
    return collator(share, 1 / len(share.labels))


def test_makes_of_all_folds_begin_with_the_same_weights():
    makes = MakeRanker(THREE).make
    assert len(makes) == 3 and makes[0].projection.weight is not makes[1].projection.weight
    for other in makes[1:]:
        torch.testing.assert_close(dict(other.state_dict()), dict(makes[0].state_dict()))


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_make_learns_nothing_of_its_own_fold_and_something_of_each_other(fold, encoded):
    ranker = MakeRanker(THREE)
    before = gradients(ranker, folded_batch(encoded))
    for spoiled in range(THREE.folds):
        after = gradients(ranker, folded_batch(encoded, spoiled))
        same = [torch.equal(before[n], after[n]) for n in before if n.startswith(f"make.{fold}.")]
        assert all(same) if spoiled == fold else not any(same)


def test_the_loss_is_the_mean_over_those_who_learn_from_an_impression(encoded):
    batch = folded_batch(encoded)
    ranker = MakeRanker(THREE)
    with torch.no_grad():
        for name, parameter in ranker.named_parameters():
            if name.startswith("make.1."):
                parameter.add_(0.1 * torch.randn_like(parameter))
        loss, outputs = ranker(batch)
        whole = replace(batch, folds=None)
        alone = []
        for make in ranker.make:
            ranker.make = make
            alone.append(ranker(whole)[1].logits)
    folds = torch.from_numpy(folds_of(batch.rows.numpy(), 3))[batch.request]
    learns = folds != torch.arange(3)[:, None]
    logits = torch.stack(alone)
    errors = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, batch.labels.expand(3, -1), reduction="none"
    )
    torch.testing.assert_close(loss, (errors * learns).sum() / 2 * batch.loss_weight)
    torch.testing.assert_close(outputs.logits, (logits * learns).sum(dim=0) / 2)
    torch.testing.assert_close(outputs.loss, loss)


def test_a_batch_that_is_scored_gets_the_mean_of_all_folds(encoded, batch):
    ranker = MakeRanker(THREE)
    with torch.no_grad():
        for parameter in ranker.make[1].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    expected = torch.stack([definition(make, encoded).logit for make in ranker.make])
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
    torch.testing.assert_close(ranker(batch)[1].logits, expected.mean(0), atol=1e-5, rtol=1e-4)


def test_checkpoints_of_folds_number_the_names_of_one():
    one = list(MAKE.build().state_dict())
    names = [f"make.{fold}.{name}" for fold in range(3) for name in one]
    assert list(MakeRanker(THREE).state_dict()) == names


@pytest.fixture(scope="module")
def further(tmp_path_factory) -> Encoded:
    """A market whose requests have two further sequences."""
    market = write_small_market(tmp_path_factory.mktemp("further"))
    add_sequences(market)
    return encode(market)


def looking_further(folds: int = 1) -> MakeRanker:
    torch.manual_seed(0)
    return MakeRanker(replace(MAKE, folds=folds, sequences=tuple(EVENTS)))


def further_batch(further: Encoded, folds: int = 1) -> RequestBatch:
    source = MappedVectors(further.vectors)
    collator = collator_for_make(further.data.items, source, 50, folds, tuple(EVENTS))
    return collator(further.arrays.take(np.array(ROWS)), 1.0)


def test_a_batch_with_further_sequences_gives_what_the_definition_gives(further):
    ranker, batch = looking_further(), further_batch(further)
    expected = definition(ranker.make, further, EVENTS).logit
    torch.testing.assert_close(ranker(batch)[1].logits, expected, atol=1e-5, rtol=1e-4)
    without = definition(MAKE.build(), further).logit
    assert not torch.allclose(without, expected, atol=1e-3)


def test_folds_of_further_sequences_are_learned_from_as_those_of_behaviours_are(further):
    ranker, batch = looking_further(folds=2), further_batch(further, folds=2)
    loss, outputs = ranker(batch)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in ranker.parameters())
    alone = definition(ranker.make[0], further, EVENTS).logit  # both are as they were drawn
    by_row = dict(
        zip(ROWS, alone.split(further.arrays.candidates.lengths[ROWS].tolist()), strict=True)
    )
    expected = torch.cat([by_row[row] for row in batch.rows.tolist()])
    torch.testing.assert_close(outputs.logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("by_fold", [False, True])
@pytest.mark.parametrize("method", ["make", "simtier+make"])
def test_frozen_features_go_by_further_sequences_too(method, by_fold, further):
    module = looking_further(folds=2).make
    with torch.no_grad():
        module[1].mlp.logit.bias.add_(1)
    make = replace(MAKE, folds=2, sequences=tuple(EVENTS))
    spec = replace(spec_of(method, further), make=make)
    frozen = further.frozen(module)
    frozen = frozen.of_training() if by_fold else frozen
    source = MappedVectors(further.vectors)
    collator = collator_for_ranker(spec, further.data.items, source, 50, frozen)
    share = further.arrays.take(np.array(ROWS))
    batch = collator(share, 1.0)
    logits = torch.stack([definition(each, further, EVENTS).logit for each in module])
    expected = logits.mean(dim=0)
    if by_fold:
        fold = torch.from_numpy(folds_of(share.rows, 2)[share.candidates.owners()])
        expected = logits.gather(0, fold[None])[0]
    torch.testing.assert_close(batch.made[:, -1], expected, atol=1e-5, rtol=1e-4)
    assert all(each.cosine is None for each in batch.sequences)


def test_a_ranker_must_have_the_sequences_that_its_make_looks_at(encoded):
    make = replace(MAKE, sequences=("cart",))
    with pytest.raises(InputError, match="requests must have cart_item_ids.*got no such sequence"):
        replace(spec_of("make", encoded), make=make)
