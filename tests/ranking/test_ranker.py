"""Tables of raw ids in the ranker: the same model, only its rows are found another way."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from tests.helpers.small_market import ITEM_IDS, UNKNOWN_BEHAVIOURS, USER_IDS
from tests.ranking.small_ranker import Encoded, ranker_of, spec_of
from torchrec_mm.data.encoded.vocabulary import Vocabulary
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.codes import code_tables
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import RankerSpec, TableSizes, spec_from_json
from torchrec_mm.ranking.zero_collision import ZeroCollision

ROWS = [0, 1, 5, 9]
OWNERS = {"user_id": USER_IDS.tolist(), "item_id": [*ITEM_IDS, *UNKNOWN_BEHAVIOURS]}
TABLE = ZeroCollision(rows=48, interval_steps=1000, partitions=1)


def raw_id_twin(plain: Ranker, spec: RankerSpec, encoded: Encoded) -> Ranker:
    """The same weights; the rows of raw ids hold what the vocabulary leads those ids to."""
    twin = ranker_of(spec)
    twin.load_state_dict(plain.state_dict(), strict=False)
    vocabularies = encoded.vocabularies
    collections = {"user_id": plain.feature_tables, "item_id": plain.item_id_tables}
    for feature in spec.zero_collision:
        vocabulary: Vocabulary = {**vocabularies.request, **vocabularies.item}[feature]
        ids = torch.tensor([int(raw) for raw in OWNERS[feature]])
        table, collection = f"{feature}_table", twin.zero_collision_tables
        owners = collection._managed_collision_collection._managed_collision_modules[table]
        owners.ids[: len(ids)] = ids
        rows = torch.from_numpy(vocabulary.rows(ids.numpy())).long()
        with torch.no_grad():
            weights = collection._embedding_module.embedding_bags[table].weight
            source = collections[feature].embedding_bags[table].weight
            weights[: len(ids)] = source[rows]
    return twin.eval()


@pytest.mark.parametrize("method", ["id", "simtier", "muse"])
@pytest.mark.parametrize("features", [["user_id"], ["item_id"], ["item_id", "user_id"]])
def test_a_row_found_by_raw_id_serves_as_one_found_by_vocabulary(features, method, encoded):
    spec = spec_of(method, encoded)
    raw = replace(spec, zero_collision=dict.fromkeys(features, TABLE))
    plain = ranker_of(spec).eval()
    expected_loss, expected = plain(encoded.batch(ROWS, method))
    batch = encoded.batch(ROWS, method, raw.zero_collision)
    loss, found = raw_id_twin(plain, raw, encoded)(batch)
    assert torch.equal(found[0], expected[0]) and torch.equal(loss, expected_loss)


def test_only_tables_that_are_there_are_looked_up(encoded):
    both = spec_of("id", encoded)
    tables = replace(both.tables, request={"user_id": 3}, item={"item_id": 4}, behaviour={})
    raw = dict.fromkeys(["user_id", "item_id"], TABLE)
    ranker = Ranker(replace(both, tables=tables, zero_collision=raw))
    assert ranker.item_id_tables is None and ranker.feature_tables is None
    assert Ranker(both).zero_collision_tables is None


def test_tables_of_raw_ids_survive_json(encoded):
    spec = replace(spec_of("id", encoded), zero_collision={"user_id": TABLE})
    assert spec_from_json(json.loads(json.dumps(asdict(spec)))).zero_collision == {"user_id": TABLE}


def test_a_feature_without_raw_ids_is_refused(encoded):
    with pytest.raises(InputError, match="zero_collision must name user_id or item_id, .* got ci"):
        replace(spec_of("id", encoded), zero_collision={"city": TABLE})


def test_an_item_attribute_called_as_a_table_of_codes_is_refused(encoded):
    codes, meta = code_tables(encoded.vectors), encoded.data.meta
    items = encoded.vocabularies.item
    vocabularies = replace(encoded.vocabularies, item={**items, "vector_code_2": items["shop_id"]})
    meta = {**meta, "item_features": [*meta["item_features"], "vector_code_2"]}
    with pytest.raises(InputError, match="item attribute vector_code_2 must not share its name"):
        TableSizes.of(vocabularies, meta, "codes", codes)
