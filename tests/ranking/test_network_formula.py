"""The ranker's logits written out: impression by impression, on rows of the tables."""

import json
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.small_market import VECTOR_WIDTH
from tests.ranking.small_ranker import MAKE, Encoded, ranker_of, spec_of
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import METHODS, LeftOut, spec_from_json, spec_to_json

ROWS = list(range(12))
WIDTH = 4  # of a table
NOTHING = torch.zeros(VECTOR_WIDTH)


@dataclass(frozen=True)
class Impression:
    """A candidate, the behaviours before it, and the unit vectors of both, None where missing."""

    target: int
    past: list[int]
    unit: dict[int, Tensor | None]

    def cosine(self, behaviour: int) -> Tensor:
        """Zero where either has no vector."""
        one, other = self.unit[self.target], self.unit[behaviour]
        return torch.zeros(()) if one is None or other is None else one @ other

    def is_known(self, behaviour: int) -> bool:
        return self.unit[self.target] is not None and self.unit[behaviour] is not None

    def scaled(self, item: int) -> Tensor:
        """The vector with entries near 1; zeros without one."""
        return (NOTHING if self.unit[item] is None else self.unit[item]) * VECTOR_WIDTH**0.5


def mlp(module, x: Tensor, companion: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Logit and hidden layers; layer i of a companion joins the input of the layer after it."""
    hidden = []
    for layer in module.layers:
        x = F.silu(layer(x))
        hidden.append(x)
        x = torch.cat([x, *companion[len(hidden) - 1 : len(hidden)]])
    return module.logit(x)[0], hidden


def pooled(module, target: Tensor, behaviours: list[Tensor], cosines: list[Tensor]) -> Tensor:
    """Target attention; the mean cosine is the last entry where the module takes cosines."""
    if not behaviours:
        return torch.zeros(len(target) + (module.side is not None))
    scores = []
    for behaviour, cosine in zip(behaviours, cosines, strict=True):
        unit = module.behaviour(behaviour) + module.target(target)
        unit = unit + module.product @ (target * behaviour)
        unit = unit if module.side is None else unit + cosine * module.side
        scores.append(module.score(unit.relu())[0])
    weights = torch.softmax(torch.stack(scores), 0)
    interest = weights @ torch.stack(behaviours)
    if module.side is None:
        return interest
    return torch.cat([interest, (weights @ torch.stack(cosines))[None]])


def make_features(make: Make, seen: Impression) -> tuple[Tensor, list[Tensor], Tensor]:
    """Interest, hidden layers and logit; zeros for a candidate without a vector."""
    if seen.unit[seen.target] is None:
        zeros = [torch.zeros(width) for width in (MAKE.width, *MAKE.hidden)]
        return zeros[0], zeros[1:], torch.zeros(())
    target = make.projection(seen.scaled(seen.target))
    known = [b for b in seen.past if seen.is_known(b)]
    behaviours = [make.projection(seen.scaled(b)) for b in known]
    both = pooled(make.attention, target, behaviours, [seen.cosine(b) for b in known])
    x = torch.cat([target, both, target * both[:-1]])
    logit, hidden = mlp(make.mlp, x, [])
    return both[:-1], hidden, logit


def logit_of(
    model: Ranker, request: Tensor, items: dict[int, Tensor], own: list[Tensor], seen: Impression
) -> Tensor:
    """One impression's; ``items`` and ``own``: embeddings of items, and of each behaviour's own."""
    network, spec = model.network, model.network.spec
    target = items[seen.target]
    bias = target[::WIDTH].sum() + request[::WIDTH].sum() + network.base_logit
    behaviours = [
        network.behaviour_projection(torch.cat([items[b], attributes]))
        for b, attributes in zip(seen.past, own, strict=True)
    ]
    if spec.has("vector"):

        def joined(embedding: Tensor, item: int) -> Tensor:
            projected = network.vector_projection(seen.scaled(item))
            return torch.cat([embedding, projected * (seen.unit[item] is not None)])

        target = joined(target, seen.target)
        behaviours = [joined(b, item) for b, item in zip(behaviours, seen.past, strict=True)]
    cosines = [seen.cosine(b) for b in seen.past]
    interest = pooled(network.attention, target, behaviours, cosines)
    extras = [torch.tensor(len(seen.past)).log1p()[None]]
    if spec.has("simscore"):
        interest, mean_cosine = interest[:-1], interest[-1:]
        extras.append(mean_cosine)
    if spec.has("simtier"):
        tiers = torch.zeros(spec.num_tiers)
        for behaviour in filter(seen.is_known, seen.past):
            tier = int((seen.cosine(behaviour) + 1) * spec.num_tiers / 2)
            tiers[min(tier, spec.num_tiers - 1)] += 1
        is_raw = "simtier_logarithm" in spec.left_out
        extras.append((tiers if is_raw else tiers.log1p()) * network.tier_weight)
    hidden: list[Tensor] = []
    if network.make is not None:
        make_interest, hidden, make_logit = make_features(network.make, seen)
        extras += [make_interest] * ("make_interest" not in spec.left_out)
        hidden = hidden if "make_hidden" not in spec.left_out else []
        bias = bias + make_logit * ("make_logit" not in spec.left_out)
    x = torch.cat([request, target, interest, target * interest, *extras])
    return mlp(network.mlp, x, hidden)[0] + bias


@torch.no_grad()
@pytest.mark.parametrize(
    ("method", "left_out"),
    [
        *((method, ()) for method in METHODS if method != "muse"),
        *(("simtier+make", (name,)) for name in get_args(LeftOut)),
    ],
)
def test_the_logits_are_those_of_the_formula_written_out(method, left_out, encoded: Encoded):
    spec = replace(spec_of(method, encoded), left_out=left_out)
    model, data = ranker_of(spec), encoded.items_of(spec)
    weights = {
        config.feature_names[0]: tables.embedding_bags[config.name].weight
        for tables in (model.item_id_tables, model.feature_tables)
        for config in tables.embedding_bag_configs()
    }
    tables_of_items = [weights[name] for name in data.features]
    items = {
        item: torch.cat([table[row] for table, row in zip(tables_of_items, rows, strict=True)])
        for item, rows in enumerate(data.rows.T.tolist())
    }
    vectors = [
        F.normalize(torch.tensor(encoded.vectors.values[row]), dim=0) if row >= 0 else None
        for row in encoded.vectors.rows(data.item_ids)
    ]
    expected = []
    for row in ROWS:
        one = encoded.arrays.take(np.array([row]))
        request = torch.cat([weights[name][rows[0]] for name, rows in one.request_rows.items()])
        past = one.behaviours.values.tolist()
        own = [
            torch.cat([weights[name][rows[at]] for name, rows in one.behaviour_rows.items()])
            for at in range(len(past))
        ]
        for target in one.candidates.values.tolist():
            seen = Impression(target, past, dict(enumerate(vectors)))
            expected.append(logit_of(model, request, items, own, seen))
    batch = encoded.batch(ROWS, method, make=model.network.make)
    found = model(batch)[1].logits
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_weights_of_tiers_that_are_left_out_do_not_learn(encoded: Encoded):
    spec = replace(spec_of("simtier", encoded), left_out=("simtier_weights",))
    assert not ranker_of(spec).network.tier_weight.requires_grad
    assert ranker_of(spec_of("simtier", encoded)).network.tier_weight.requires_grad


def test_what_is_left_out_is_kept_with_the_run_and_not_named_where_nothing_is(encoded: Encoded):
    whole = spec_of("simtier+make", encoded)
    spec = replace(whole, left_out=("make_logit",))
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    assert "left_out" not in spec_to_json(whole)
