"""Users' effects in a ranker: zero adds nothing, a user's row adds what it says, to him alone."""

from dataclasses import replace

import pytest
import torch
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from tests.ranking.small_ranker import ranker_of, spec_of
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.ranking.collators import collator_for_ranker
from torchrec_mm.ranking.effects import users_of
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import RankerSpec, spec_from_json, spec_to_json

ROWS = [0, 1, 2, 3, 4, 5]


def drawn(encoded, method: str) -> tuple[Ranker, RequestBatch]:
    """A ranker in evaluation whose effects are zero, and a batch."""
    spec = replace(spec_of(method, encoded), effects=8)
    vectors = MappedVectors(encoded.vectors) if spec.vector_width else None
    share = encoded.arrays.take(torch.tensor(ROWS).numpy())
    batch = collator_for_ranker(spec, encoded.data.items, vectors, 50)(share, 1.0)
    ranker = ranker_of(spec)
    configs = ranker.effect_tables.embedding_bag_configs()
    ranker.effect_tables = EmbeddingBagCollection(tables=configs)
    table_of(ranker).zero_()
    ranker.network.effects.find_directions(encoded.vectors) if spec.vector_width else None
    return ranker.eval(), batch


def table_of(ranker: Ranker) -> torch.Tensor:
    (bag,) = ranker.effect_tables.embedding_bags.values()
    return bag.weight.detach()


def logits_of(ranker: Ranker, batch: RequestBatch) -> torch.Tensor:
    with torch.no_grad():
        return ranker(batch)[1].logits


@pytest.mark.parametrize("method", ["id", "simtier"])
def test_zeros_add_nothing_and_training_does_not_look_effects_up(encoded, method):
    ranker, batch = drawn(encoded, method)
    zero = logits_of(ranker, batch)
    table_of(ranker).fill_(1)
    assert not torch.equal(logits_of(ranker, batch), zero)
    assert torch.equal(logits_of(ranker.train(), batch), zero)
    spec = replace(ranker.network.spec, effects=0)
    assert Ranker(spec).effect_tables is None and Ranker(spec).network.effects is None


def test_a_row_adds_its_product_with_the_items_directions_to_its_user_alone(encoded):
    ranker, batch = drawn(encoded, "simtier")
    before, table = logits_of(ranker, batch), table_of(ranker)
    users = users_of(batch).values()
    table[users[0]] = torch.arange(1.0, 9.0)
    added = logits_of(ranker, batch) - before
    effects = ranker.network.effects
    for place, item in enumerate(batch.candidates.tolist()):
        expected = 0.0
        if users[batch.request[place]] == users[0]:
            expected = 1.0
            if batch.vector_mask[item]:
                unit = torch.nn.functional.normalize(batch.target_vectors[place].float(), dim=0)
                projected = (unit - effects.mean) @ effects.directions
                expected += float(projected @ torch.arange(2.0, 9.0))
        assert float(added[place]) == pytest.approx(expected, abs=1e-4)
    assert (added != 0).any() and (added == 0).any()
    assert not batch.vector_mask[batch.candidates.long()].all()  # one without a vector is there


def test_a_description_without_effects_is_of_a_ranker_without_them(encoded):
    spec = spec_of("id", encoded)
    assert "effects" not in spec_to_json(spec)
    assert spec_from_json(spec_to_json(spec)).effects == 0
    with_effects = replace(spec, effects=8)
    assert RankerSpec(**{**vars(with_effects)}) == spec_from_json(spec_to_json(with_effects))
