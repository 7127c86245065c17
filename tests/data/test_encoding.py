"""Encoded requests: every id on its row, what is unknown kept or refused."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.encoded import catalogue_of, requests_of
from torchrec_mm.data.encoding import encode_requests
from torchrec_mm.data.vocabulary import build_vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors

WHERE = Path("market/requests/test")
ITEMS = catalogue_of([-5, 10, 20, 30, 40], shop=[1, 1, 2, 3, 2])
TRAIN = requests_of(
    behaviours=[[20, 77], []],
    candidates=[[10, -5], [20]],
    user_ids=[8, 9],
    features={"city": [4, 5]},
    behaviour_attributes={"stars": [3, 1]},
)
VOCABULARIES = build_vocabularies(TRAIN, ITEMS, min_count=1)


def vectors_of(folder: Path, item_ids: list[int]) -> ItemVectors:
    values = np.eye(len(item_ids), 6) + 0.5
    write_item_vectors(
        folder, np.array(item_ids), values, dtype="float32", encoder="scl", modality="image"
    )
    return ItemVectors.open(folder)


def test_candidates_and_behaviours_point_at_their_items():
    encoded = encode_requests(TRAIN, ITEMS, WHERE)
    assert encoded.item_ids.tolist() == [-5, 10, 20, 30, 40, 77]
    assert encoded.item_ids[encoded.candidates.values].tolist() == [10, -5, 20]
    assert encoded.item_ids[encoded.behaviours.values].tolist() == [20, 77]
    assert encoded.candidates.lengths.tolist() == [2, 1]
    assert encoded.behaviours.lengths.tolist() == [2, 0]


def test_without_vocabularies_and_vectors_there_is_nothing_to_look_up():
    encoded = encode_requests(TRAIN, ITEMS, WHERE)
    assert (encoded.item_rows, encoded.request_rows, encoded.behaviour_rows) == ({}, {}, {})
    assert encoded.vector_rows.tolist() == [-1] * 6


def test_every_table_row_is_that_of_the_vocabulary():
    encoded = encode_requests(TRAIN, ITEMS, WHERE, VOCABULARIES)
    item_ids = VOCABULARIES.item["item_id"].known_ids
    for item_id, row in zip(encoded.item_ids, encoded.item_rows["item_id"], strict=True):
        assert row == (item_ids.tolist().index(item_id) + 2 if item_id in item_ids else 0)
    # shop 3 belongs to item 30 alone, which training never showed; item 77 has no shop.
    assert encoded.item_rows["shop"].tolist() == [2, 2, 3, 0, 3, 0]
    assert encoded.request_rows["user_id"].tolist() == [2, 3]
    assert encoded.request_rows["city"].tolist() == [2, 3]
    assert encoded.behaviour_rows["stars"].tolist() == [3, 2]


def test_values_that_training_never_showed_are_out_of_vocabulary():
    test = requests_of(
        [[20]],
        [[30]],
        user_ids=[100],
        features={"city": [100]},
        behaviour_attributes={"stars": [100]},
    )
    encoded = encode_requests(test, ITEMS, WHERE, VOCABULARIES)
    assert encoded.request_rows["user_id"].tolist() == [0]
    assert encoded.request_rows["city"].tolist() == [0]
    assert encoded.behaviour_rows["stars"].tolist() == [0]
    (candidate,) = encoded.candidates.values
    assert encoded.item_rows["item_id"][candidate] == 0


def test_vectors_are_found_by_item_and_coverage_counts_occurrences(tmp_path):
    vectors = vectors_of(tmp_path / "vectors", [77, 10, 1000])
    requests = requests_of([[77, 77], [20]], [[10, -5], [10]])
    encoded = encode_requests(requests, ITEMS, WHERE, vectors=vectors)
    rows = dict(zip(encoded.item_ids.tolist(), encoded.vector_rows.tolist(), strict=True))
    assert rows == {-5: -1, 10: 0, 20: -1, 30: -1, 40: -1, 77: 1}
    assert encoded.vector_coverage == pytest.approx(4 / 6)


def test_a_candidate_that_items_lacks_is_refused():
    with pytest.raises(
        InputError, match=r"requests/test column candidate_item_ids must hold ids of items/.*got 77"
    ):
        encode_requests(requests_of([[]], [[77]]), ITEMS, WHERE)


@pytest.mark.parametrize(
    ("features", "attributes", "missing"),
    [({}, {"stars": [1]}, "city"), ({"city": [4]}, {}, "stars")],
)
def test_a_column_that_training_had_is_missed_by_name(features, attributes, missing):
    test = requests_of([[20]], [[10]], features=features, behaviour_attributes=attributes)
    with pytest.raises(InputError, match=f"requests/test must have the column {missing} that"):
        encode_requests(test, ITEMS, WHERE, VOCABULARIES)


def test_an_item_attribute_that_training_had_is_missed_by_name():
    test = requests_of([[20]], [[10]], features={"city": [4]}, behaviour_attributes={"stars": [1]})
    with pytest.raises(InputError, match="items must have the column shop that"):
        encode_requests(test, catalogue_of([10, 20]), WHERE, VOCABULARIES)
