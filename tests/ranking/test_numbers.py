"""Numeric features in the network: values and flags are columns of the MLP, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.kinds_market import write_kinds_market
from tests.ranking.small_ranker import Encoded, encode, ranker_of, spec_of
from torchrec_mm.data.stream.numbers import with_flags
from torchrec_mm.ranking.parts import Block, Request, Target
from torchrec_mm.ranking.spec import METHODS

ROWS = list(range(9))


@pytest.fixture(scope="module")
def with_numbers(tmp_path_factory) -> Encoded:
    return encode(write_kinds_market(tmp_path_factory.mktemp("kinds")))


@torch.no_grad()
def logits_of(model, batch) -> torch.Tensor:
    return model(batch)[1].logits


def test_null_is_a_flag_beside_a_value_of_zero():
    found = with_flags(np.array([[0.5, np.nan], [np.nan, 0.0]], np.float32))
    assert found.tolist() == [[0.5, 0, 0, 1], [0, 0, 1, 0]]
    assert with_flags(None) is None


def test_a_batch_holds_the_numbers_of_its_requests_and_impressions(with_numbers):
    batch, arrays = with_numbers.batch([4, 1], "id"), with_numbers.arrays.take(np.array([4, 1]))
    assert torch.equal(batch.request_numbers, with_flags(arrays.request_numbers))
    of_items = with_numbers.data.items.numbers[arrays.candidates.values]
    both = np.concatenate([of_items, arrays.impression_numbers], axis=1)
    assert torch.equal(batch.target_numbers, with_flags(both))
    assert batch.target_numbers.shape == (len(batch.labels), 6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "width"), [("request_numbers", 4), ("target_numbers", 6)])
def test_every_value_and_flag_changes_the_logit_in_every_method(name, width, method, with_numbers):
    model, batch = ranker_of(spec_of(method, with_numbers)), with_numbers.batch(ROWS, method)
    before = logits_of(model, batch)
    for place in range(width):
        numbers = getattr(batch, name).clone()
        assert numbers.shape[1] == width
        numbers[:, place] += 1
        after = logits_of(model, replace(batch, **{name: numbers}))
        assert (after != before).float().mean() > 0.5, place


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_no_biases(method, with_numbers):
    """With an MLP that says nothing, what is left of the logit is first-order terms and MAKE."""
    model, batch = ranker_of(spec_of(method, with_numbers)), with_numbers.batch(ROWS, method)
    with torch.no_grad():
        model.network.mlp.logit.weight.zero_()
    others = replace(
        batch,
        request_numbers=batch.request_numbers + 1,
        target_numbers=batch.target_numbers + 1,
    )
    assert torch.equal(logits_of(model, others), logits_of(model, batch))


def test_without_numbers_there_is_no_block_and_nothing_in_the_batch(encoded):
    batch, spec = encoded.batch(ROWS, "id"), spec_of("id", encoded)
    assert batch.request_numbers is None and batch.target_numbers is None
    assert Request().build(None, spec) == [Block(12, of_request=True, embeddings=12)]
    assert Target().build(None, spec) == [Block(12, embeddings=12)]


@pytest.mark.parametrize("method", METHODS)
def test_features_of_impressions_are_embeddings_with_biases(method, with_numbers):
    spec = spec_of(method, with_numbers)
    names = ["candidate_position", "candidate_source"]
    assert list(spec.tables.impression) == names
    model, batch = ranker_of(spec), with_numbers.batch(ROWS, method)
    arrays = with_numbers.arrays.take(np.array(ROWS))
    for place, name in enumerate(names):
        jagged = batch.features[name]
        rows = jagged.values()[batch.impression_index[place].long()]
        assert rows.tolist() == arrays.impression_rows[name].tolist()
    with torch.no_grad():
        model.network.mlp.logit.weight.zero_()
        before = logits_of(model, batch)
        weight = model.feature_tables.embedding_bags["candidate_source_table"].weight
        weight[:, 1:] += 1
        assert torch.equal(logits_of(model, batch), before)
        weight[:, 0] += 1
    torch.testing.assert_close(logits_of(model, batch), before + 1)


def test_the_pieces_of_a_request_and_none_of_its_candidates_keep_their_numbers(with_numbers):
    (long,) = np.flatnonzero(with_numbers.arrays.candidates.lengths > 3)[:1]
    request = with_numbers.arrays.take(np.array([long]))
    piece = request.cut(1, 3)
    assert np.array_equal(piece.impression_numbers, request.impression_numbers[1:3], equal_nan=True)
    assert request.without_candidates().impression_numbers.shape == (0, 1)
    whole = request.impression_rows["candidate_position"].tolist()
    assert piece.impression_rows["candidate_position"].tolist() == whole[1:3]
    assert not len(request.without_candidates().impression_rows["candidate_position"])
