"""Weights in the loss: a weighted mean, and an impression of weight 0 teaches nothing."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.data.encode.arrays import InMemory
from tests.ranking.small_ranker import MAKE, Encoded, ranker_of, spec_of
from tests.ranking.test_bias import CANDIDATES, ITEMS, LABELS, USERS, requests
from tests.ranking.test_make import make_batch
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.make import MakeRanker
from torchrec_mm.ranking.spec import METHODS

MODELS = (*METHODS, "MAKE itself")


def model_and_batch(method: str, encoded: Encoded) -> tuple[torch.nn.Module, RequestBatch]:
    if method == "MAKE itself":
        torch.manual_seed(0)
        return MakeRanker(replace(MAKE, dropout=0.0)), make_batch(encoded)
    return ranker_of(spec_of(method, encoded)), encoded.batch(list(range(9)), method)


def weighted(batch: RequestBatch, weights: torch.Tensor) -> RequestBatch:
    return replace(batch, weights=weights, loss_weight=1 / weights.sum())


@pytest.mark.parametrize("method", MODELS)
def test_the_loss_is_the_weighted_mean_of_each_impressions(method, encoded):
    model, batch = model_and_batch(method, encoded)
    weights = torch.linspace(0, 3, len(batch.labels))
    loss, outputs = model(weighted(batch, weights))
    each = F.binary_cross_entropy_with_logits(outputs.logits, batch.labels, reduction="none")
    torch.testing.assert_close(loss, (weights * each).sum() / weights.sum())


@pytest.mark.parametrize("method", MODELS)
def test_weights_that_are_alike_are_as_good_as_none(method, encoded):
    model, batch = model_and_batch(method, encoded)
    loss, _ = model(weighted(batch, torch.full_like(batch.labels, 2.5)))
    torch.testing.assert_close(loss, model(batch)[0])


@pytest.mark.parametrize("method", MODELS)
def test_the_label_of_an_impression_that_weighs_nothing_teaches_nothing(method, encoded):
    model, batch = model_and_batch(method, encoded)
    weights = (torch.arange(len(batch.labels)) % 3).float()
    learned = []
    for labels in (batch.labels, torch.where(weights == 0, 1 - batch.labels, batch.labels)):
        model.zero_grad()
        loss, _ = model(replace(weighted(batch, weights), labels=labels))
        loss.backward()
        learned.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*learned, strict=True))


def test_a_batch_that_weighs_nothing_has_a_loss_of_0_and_no_gradient(encoded):
    model, batch = model_and_batch("id", encoded)
    weights = torch.zeros_like(batch.labels)
    loss, _ = model(replace(batch, weights=weights, loss_weight=torch.tensor(0.0)))
    loss.backward()
    assert loss == 0 and not any(p.grad.any() for p in model.parameters())


def test_click_rates_count_an_impression_as_often_as_it_weighs():
    arrays = requests(CANDIDATES, LABELS, USERS)
    twice = requests([*CANDIDATES, CANDIDATES[0]], [*LABELS, LABELS[0]], [*USERS, USERS[0]])
    first = [2.0] * len(CANDIDATES[0])
    weights = torch.tensor(first + [1.0] * (len(arrays.labels) - len(first))).numpy()
    models = [BiasModel.fit(InMemory(twice, ITEMS, 3, []))]
    weighing = InMemory(replace(arrays, weights=weights), ITEMS, 3, [])
    models.append(BiasModel.fit(weighing))
    again, alone = (model.logits(arrays, ITEMS).tolist() for model in models)
    assert alone == pytest.approx(again, rel=1e-6)
