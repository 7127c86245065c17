"""MUSE on one device: what the search found, and the formula written out."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.ranking.small_ranker import Encoded, ranker_of, spec_of
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.ranking.collators import attended_behaviours
from torchrec_mm.ranking.ranker import Ranker

ROWS = list(range(12))


@pytest.fixture
def batch(encoded: Encoded) -> RequestBatch:
    return encoded.batch(ROWS, "muse")


@pytest.fixture
def model(encoded: Encoded) -> Ranker:
    return ranker_of(spec_of("muse", encoded))


@torch.no_grad()
def logits_of(model: Ranker, batch: RequestBatch) -> torch.Tensor:
    return model(batch)[1].logits


def test_the_batch_of_these_tests_has_all_there_is_to_get_wrong(batch):
    found = batch.search
    assert 0 in batch.behaviour_offsets.diff()
    assert 0 in found.kept_length and found.kept_index.shape[1] in found.kept_length
    assert (found.tiers.sum(-1) > found.kept_length).any()  # more behaviours than are kept


def test_a_candidate_is_compared_with_the_newest_behaviours_and_those_that_are_kept(encoded):
    """The more there are, the fewer requests fit in a batch."""
    assert attended_behaviours(spec_of("muse", encoded), 50) == 50 + 3
    assert attended_behaviours(spec_of("simtier", encoded), 50) == 50


def test_what_the_search_did_not_keep_is_invisible(model, batch):
    found = batch.search
    padding = torch.arange(found.kept_index.shape[1]) >= found.kept_length[:, None]
    changed = replace(
        batch,
        search=replace(
            found,
            kept_index=found.kept_index.masked_fill(padding, 1),
            kept_cosine=found.kept_cosine.masked_fill(padding, math.nan),
        ),
    )
    torch.testing.assert_close(logits_of(model, changed), logits_of(model, batch))
    torch.testing.assert_close(model(changed)[0], model(batch)[0])


@pytest.mark.parametrize("part", ["kept_cosine", "tiers", "kept_length", "kept_index"])
def test_all_that_the_search_found_matters(part, model, batch):
    halved = getattr(batch.search, part) // 2
    changed = replace(batch, search=replace(batch.search, **{part: halved}))
    assert not torch.allclose(logits_of(model, changed), logits_of(model, batch))


def test_the_logits_are_those_of_the_formula_written_out(model, encoded, batch):
    """Request by request, impression by impression, in plain Python over rows of the tables."""
    network, items = model.network, encoded.data.items
    weights = {
        config.feature_names[0]: tables.embedding_bags[config.name].weight.detach()
        for tables in (model.item_id_tables, model.feature_tables)
        for config in tables.embedding_bag_configs()
    }
    vector_rows = encoded.vectors.rows(items.item_ids)

    def embedding(item: int, names) -> torch.Tensor:
        rows = dict(zip(items.features, items.rows[:, item], strict=True))
        return torch.cat([weights[name][rows[name]] for name in names])

    def unit(item: int) -> torch.Tensor:
        return F.normalize(torch.tensor(encoded.vectors.values[vector_rows[item]]), dim=0)

    expected = []
    for row in ROWS:
        one = encoded.arrays.take(np.array([row]))
        past = one.behaviours.values.tolist()
        known = [item for item in past if vector_rows[item] >= 0]
        request = torch.cat([weights[name][rows[0]] for name, rows in one.request_rows.items()])
        for target in one.candidates.values.tolist():
            query = embedding(target, network.spec.behaviour_tables)
            alike = (
                [(float(unit(b) @ unit(target)), b) for b in known]
                if (vector_rows[target] >= 0)
                else []
            )
            tiers = torch.zeros(6)
            for cosine, _ in alike:
                tiers[min(int((cosine + 1) * 3), 5)] += 1
            kept = sorted(alike, key=lambda pair: -pair[0])[:3]

            def pooled(behaviours, projection, mix=None, query=query):
                if not behaviours:
                    return torch.zeros(8), torch.zeros(8)
                tables = network.spec.behaviour_tables
                rows = torch.stack([embedding(b, tables) for _, b in behaviours])
                score = rows @ projection(query) / math.sqrt(8)
                if mix is not None:
                    cosine = torch.tensor([c for c, _ in behaviours])
                    score = mix[0] * score + mix[1] * cosine + mix[2] * score * cosine
                return torch.softmax(score, 0) @ rows, rows.mean(0)

            recent, mean_recent = pooled([(0.0, b) for b in past], network.recent_query)
            best, mean_kept = pooled(kept, network.kept_query, network.mix)
            item = embedding(target, items.features)
            history = torch.tensor([math.log1p(len(past))])
            shared = network.request_layer(torch.cat([request, mean_recent, history]))
            x = torch.cat([item, recent, best, mean_kept, tiers.log1p() * network.tier_weight])
            for i, layer in enumerate(network.mlp.layers):
                x = F.silu(layer(x) + (shared if i == 0 else 0))
            logit = network.mlp.logit(x)[0] + network.base_logit
            expected.append((logit + item[::4].sum() + request[::4].sum()).item())
    logits = logits_of(model, batch)
    torch.testing.assert_close(logits, torch.tensor(expected), atol=1e-4, rtol=1e-4)
