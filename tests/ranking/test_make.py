"""MAKE, and the view of item vectors it lives on."""

from dataclasses import replace

import pytest
import torch
from torchrec_mm.ranking.vector_view import VectorView

from tests.ranking.small_ranker import MAKE, Encoded
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.collators import rows_of_vectors
from torchrec_mm.ranking.make import MakeRanker, make_features


@pytest.fixture
def batch(encoded: Encoded):
    return encoded.batch(list(range(12)))


def make() -> Make:
    torch.manual_seed(0)
    return MAKE.build()


def test_cosines_and_masks_are_those_of_each_occurrences_item(encoded, batch):
    view, data = VectorView.of(batch), encoded.arrays
    vector_rows = rows_of_vectors(encoded.data.items, encoded.vectors)
    cosine = view.cosine()

    def stored(lists, row: int, mask) -> list:
        """Vectors of one request's items, None without one; the mask is checked on the way."""
        rows = vector_rows[lists.values[slice(*lists.offsets[row : row + 2])]].tolist()
        padding = mask.shape[1] - len(rows)
        assert mask[row].tolist() == [stored >= 0 for stored in rows] + [False] * padding
        return [torch.tensor(encoded.vectors.values[s]) if s >= 0 else None for s in rows]

    for row in range(12):
        behaviours = stored(data.behaviours, row, view.behaviour_mask)
        for c, target in enumerate(stored(data.candidates, row, view.target_mask)):
            for b, behaviour in enumerate(behaviours):
                if target is not None and behaviour is not None:
                    expected = pytest.approx((target @ behaviour).item(), abs=1e-5)
                    assert cosine[row, c, b].item() == expected


def test_the_scale_of_int8_vectors_does_not_matter(batch):
    coarse = replace(batch, vectors=(batch.vectors * 127).to(torch.int8))
    fine = VectorView.of(replace(batch, vectors=coarse.vectors.float() / 127))
    torch.testing.assert_close(VectorView.of(coarse).cosine(), fine.cosine())


def test_a_pair_is_known_where_both_items_are_real_and_have_a_vector(batch):
    view = VectorView.of(batch)
    for request, candidate, behaviour in torch.cartesian_prod(
        *(torch.arange(size) for size in view.pair_mask().shape)
    ).tolist():
        both = view.target_mask[request, candidate] and view.behaviour_mask[request, behaviour]
        assert view.pair_mask()[request, candidate, behaviour] == both


def test_a_candidate_without_a_vector_gets_zeros_everywhere(batch):
    features = make_features(make(), VectorView.of(batch))
    known = batch.vector_mask[batch.candidate_index] & batch.candidate_mask
    assert (~known & batch.candidate_mask).any()
    for part in (features.interest, *features.hidden, features.logit[..., None]):
        assert not part[~known].any()
        assert part[known].any(-1).all() or part is features.interest


def test_the_interest_is_that_of_the_behaviours_with_a_vector(batch):
    """Taking a behaviour's vector away is the same as never having seen it."""
    module, view = make(), VectorView.of(batch)
    hidden = view.behaviour_mask.clone()
    hidden[:, 0] = False
    without = make_features(module, replace(view, behaviour_mask=hidden))
    rest = replace(
        batch,
        behaviour_index=batch.behaviour_index[:, 1:],
        behaviour_mask=batch.behaviour_mask[:, 1:],
    )
    cut = make_features(module, VectorView.of(rest))
    torch.testing.assert_close(without.logit, cut.logit)
    torch.testing.assert_close(without.interest, cut.interest)


def test_every_weight_of_make_learns_from_clicks(batch):
    torch.manual_seed(0)
    ranker = MakeRanker(MAKE)
    loss, outputs = ranker(batch)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in ranker.parameters())
    assert outputs.logits.shape == batch.labels.shape


def test_make_needs_no_ids(batch):
    without_ids = replace(batch, item_ids=None, features=None)
    torch.manual_seed(0)
    ranker = MakeRanker(MAKE)
    assert torch.equal(ranker(without_ids)[0], ranker(batch)[0])


def test_padding_is_invisible_to_make(batch):
    torch.manual_seed(0)
    ranker = MakeRanker(MAKE)
    changed = replace(
        batch,
        candidate_index=torch.where(batch.candidate_mask, batch.candidate_index, 5),
        behaviour_index=torch.where(batch.behaviour_mask, batch.behaviour_index, 5),
        vectors=torch.where(batch.vector_mask[:, None], batch.vectors, 1e6),
    )
    torch.testing.assert_close(ranker(changed)[0], ranker(batch)[0])


def test_make_drops_out_in_training_alone(batch):
    torch.manual_seed(0)
    ranker = MakeRanker(replace(MAKE, dropout=0.5))
    assert not torch.equal(ranker(batch)[0], ranker(batch)[0])
    ranker.eval()
    assert torch.equal(ranker(batch)[0], ranker(batch)[0])


def test_plain_tensors_give_what_a_batch_of_distinct_items_gives(batch):
    module, view = make(), VectorView.of(batch)
    targets, behaviours = view.at_targets(view.slots), view.at_behaviours(view.slots)
    plain = module(3 * targets, behaviours / 7, view.target_mask, view.behaviour_mask)
    expected = make_features(module, view)
    torch.testing.assert_close(plain, expected)


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
