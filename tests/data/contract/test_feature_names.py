"""One name, one feature: whoever else is called so is refused before anything is written."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from tests.helpers.small_market import write_parquet
from torchrec_mm.data.contract.feature_names import check_names
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.ranking.spec import TableSizes

ITEMS = {"item_id": [1, 2, 3], "shop": [10, 20, 20]}
REQUESTS = {
    "user_id": [5, -6],
    "behaviour_item_ids": [[1, 2], []],
    "candidate_item_ids": [[3], [1, 2]],
    "labels": [[1], [0, 1]],
    "city": [3, 4],
    "action": [[10, 20], []],
}
NAMES = st.lists(st.text("ab._", max_size=3), max_size=3)


def folders(tmp_path, items=ITEMS, requests=REQUESTS):
    write_parquet(tmp_path / "data" / "items", items)
    write_parquet(tmp_path / "data" / "requests" / "train", requests)
    return tmp_path / "data"


@given(NAMES, NAMES, NAMES)
def test_names_are_refused_exactly_where_two_tables_would_be_one(item, request, behaviour):
    names = [*item, *request, *behaviour]
    distinct = {name.replace(".", "_") for name in names}
    try:
        check_names(item, request, behaviour, ())
    except InputError as error:
        assert len(distinct) < len(names) and "\n" not in str(error)
    else:
        assert len(distinct) == len(names)


@pytest.mark.parametrize(
    ("items", "requests", "words"),
    [
        ({"city": [1, 2, 3]}, {}, "feature city must not share its name with a column of items/"),
        ({}, {"item_id": [1, 2]}, "context feature item_id must not share its name"),
        ({"user_id": [1, 2, 3]}, {}, "context feature user_id must not share its name"),
        ({"action": [1, 2, 3]}, {}, "behaviour attribute action must not share its name"),
        ({}, {"item_id": [[1, 2], []]}, "behaviour attribute item_id must not share its name"),
        ({"a.b": [1, 2, 3]}, {"a_b": [1, 2]}, "a_b must not share .*, a.b, as both tables"),
        ({}, {"a.b": [[1, 2], []], "a_b": [1, 2]}, "a.b must not share .*/, a_b, as both"),
        ({"a.b": [1, 2, 3], "a_b": [1, 2, 3]}, {}, "a_b must not share .* of items/, a.b"),
        ({}, {"user.id": [1, 2]}, "feature user.id must not share .*, user_id, as both tables"),
    ],
)
def test_columns_of_two_owners_of_one_name_are_refused_before_anything_is_read(
    items, requests, words, tmp_path
):
    data = folders(tmp_path, ITEMS | items, REQUESTS | requests)
    with pytest.raises(InputError, match=words):
        encode_folder(data, ("train",), tmp_path / "out", max_behaviours=5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_columns_that_the_model_does_not_know_may_be_called_anything(tmp_path):
    """What a model learned decides: further columns are not read."""
    encode_folder(folders(tmp_path), ("train",), tmp_path / "out", max_behaviours=5)
    known = Vocabularies.load(tmp_path / "out" / "vocabularies.safetensors")
    data = folders(tmp_path, ITEMS | {"city": [1, 2, 3]}, REQUESTS | {"shop": [1, 2]})
    encode_folder(data, ("train",), tmp_path / "again", max_behaviours=5, vocabularies=known)
    rows = [EncodedRequests(tmp_path / name, "train") for name in ("out", "again")]
    assert rows[0].num_rows == rows[1].num_rows
    assert (rows[0].items.rows == rows[1].items.rows).all()


def test_what_was_written_with_a_shared_name_is_refused_wherever_it_is_opened(tmp_path):
    encode_folder(folders(tmp_path), ("train",), tmp_path / "out", max_behaviours=5)
    out = tmp_path / "out"
    vocabularies, meta = out / "vocabularies.safetensors", out / "meta.json"
    tensors = load_file(vocabularies)
    shared = {name.replace("item/shop", "item/city"): ids for name, ids in tensors.items()}
    words = "out.*: user or context feature city must not share its name with a column of items/"
    save_file(shared, vocabularies)
    with pytest.raises(InputError, match=words):
        Vocabularies.load(vocabularies)
    save_file(tensors, vocabularies)
    changed = json.loads(meta.read_text()) | {"item_features": ["item_id", "city"]}
    meta.write_text(json.dumps(changed))
    with pytest.raises(InputError, match=words):
        EncodedRequests(tmp_path / "out", "train")
    with pytest.raises(InputError, match="feature city must not share its name"):
        TableSizes({"user_id": 3, "city": 4}, {"item_id": 5, "city": 6}, {})
