"""Whatever columns logs hold: what a ranker uses, its logits depend on."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchrec.sparse.jagged_tensor import KeyedTensor

from tests.data.encode.test_any_schema import said_of, schemas, write
from tests.ranking.small_ranker import ranker_of
from torchrec_mm.data.contract.request_columns import column_of
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.data.encoded.encoded import EncodedRequests, RequestArrays
from torchrec_mm.ranking.collators import collator_for_ranker
from torchrec_mm.ranking.spec import RankerSettings, RankerSpec

SETTINGS = RankerSettings(embedding_dim=4, hidden=(6,))
NUMBERS = ("request_numbers", "target_numbers")


@given(schemas(), st.booleans())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_logit_changes_with_every_feature_that_is_used(columns, is_shared):
    usable = {
        folder: {name: each for name, each in found.items() if not name.startswith("unusable")}
        for folder, found in columns.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(scratch, "data"), Path(scratch, "out")
        write(data, usable)
        said = json.dumps(said_of(usable, is_shared))
        (data / "features.yaml").write_text(said, encoding="utf-8")
        encode_folder(data, ("train",), out, max_behaviours=5)
        train = EncodedRequests(out, "train")
        arrays = RequestArrays.concatenate([train.read(group) for group in train.groups])
        spec = RankerSpec.of("id", SETTINGS, train, None)
        batch = collator_for_ranker(spec, train.items, None, 5)(arrays, 0.25)
    numbers = {*spec.request_numbers, *spec.target_numbers}
    names = {name for found in usable.values() for name in found}
    sequences = {column_of(event) for event in spec.sequences}
    weights = {"weights"} if batch.weights is not None else set()
    assert names - weights - sequences == ({*spec.tables.all} - {"user_id", "item_id"}) | numbers
    ranker = ranker_of(spec)
    inputs = {"item_id": batch.item_ids, "feature": batch.features, "bag": batch.bags}
    tables = {name: getattr(ranker, f"{name}_tables") for name in inputs}
    found = [tables[name](bags) for name, bags in inputs.items() if tables[name] is not None]
    before = ranker.network(batch, *found)[1].logits
    for place, embeddings in enumerate(found):
        for name in embeddings.keys():
            others = [*found]
            others[place] = without(embeddings, name)
            assert not torch.equal(before, ranker.network(batch, *others)[1].logits), name
    for field in NUMBERS:
        given_numbers = getattr(batch, field)
        for column in range(0 if given_numbers is None else given_numbers.shape[1] // 2):
            changed = given_numbers.clone()
            changed[:, column] += 1
            after = ranker.network(replace(batch, **{field: changed}), *found)[1].logits
            assert not torch.equal(before, after), field
    for place, sequence in enumerate(batch.sequences):
        others = [*batch.sequences]
        others[place] = replace(sequence, slots=(sequence.slots + 1) % (1 + sequence.slots.max()))
        after = ranker.network(replace(batch, sequences=tuple(others)), *found)[1].logits
        assert not torch.equal(before, after), spec.sequences[place]


def without(embeddings: KeyedTensor, name: str) -> KeyedTensor:
    """The same, one feature's embeddings changed."""
    values, start = embeddings.values().clone(), 4 * list(embeddings.keys()).index(name)
    values[:, start : start + 4] += 1
    return KeyedTensor(list(embeddings.keys()), [4] * len(embeddings.keys()), values)
