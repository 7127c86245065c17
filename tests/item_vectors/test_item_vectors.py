"""Item vectors: written once, refused when wrong, looked up by id."""

import json
import pickle

import numpy as np
import pytest
import torch

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.dequantise import dequantise
from torchrec_mm.item_vectors.store import ItemVectors, check_origin
from torchrec_mm.item_vectors.writer import write_blocks, write_item_vectors

EAST, NORTH, NORTH_EAST = (2.0, 0.0), (0.0, 5.0), (3.0, 3.0)


def write(folder, ids=(7, -3, 5), vectors=(EAST, NORTH, NORTH_EAST), dtype="float32", **kwargs):
    write_item_vectors(
        folder,
        np.array(ids, dtype=np.int64),
        np.array(vectors),
        dtype=dtype,
        **({"encoder": "scl", "modality": "image"} | kwargs),
    )
    return folder


def test_vectors_come_back_by_id_in_unit_length(tmp_path):
    vectors = ItemVectors.open(write(tmp_path / "v"))
    assert vectors.item_ids.tolist() == [-3, 5, 7]
    values, mask = vectors.lookup(np.array([7, -3]))
    assert values.tolist() == [[1, 0], [0, 1]]
    assert mask.all()
    assert (len(vectors), vectors.width, vectors.dtype) == (3, 2, np.float32)
    assert (vectors.encoder, vectors.modality) == ("scl", "image")


def test_int8_is_127_times_the_unit_vector_cut_towards_zero(tmp_path):
    vectors = ItemVectors.open(write(tmp_path / "v", [1, 2], [(-3.0, 3.0), EAST], "int8"))
    assert vectors.values.tolist() == [[-89, 89], [127, 0]]  # 127 / sqrt(2) = 89.8
    assert vectors.values.dtype == np.int8


def test_an_id_without_a_vector_is_masked_and_zero(tmp_path):
    vectors = ItemVectors.open(write(tmp_path / "v", vectors=(EAST, EAST, EAST)))
    values, mask = vectors.lookup(np.array([6, 5, 6]))
    assert mask.tolist() == [False, True, False]
    assert values.tolist() == [[0, 0], [1, 0], [0, 0]]
    assert vectors.rows(np.array([[6, 7], [5, -3]])).tolist() == [[-1, 2], [1, 0]]
    assert vectors.coverage(np.array([6, 6, 6, 5])) == 0.25


def test_lookup_of_nothing_gives_nothing(tmp_path):
    vectors = ItemVectors.open(write(tmp_path / "v"))
    values, mask = vectors.lookup(np.array([], dtype=np.int64))
    assert values.shape == (0, 2) and mask.shape == (0,)
    assert vectors.coverage(np.array([], dtype=np.int64)) == 1.0


def test_changing_what_was_looked_up_leaves_the_store_alone(tmp_path):
    vectors = ItemVectors.open(write(tmp_path / "v"))
    vectors.lookup(np.array([7]))[0][:] = 9
    assert vectors.lookup(np.array([7]))[0].tolist() == [[1, 0]]


def test_the_fingerprint_names_the_values_not_the_order_they_came_in(tmp_path):
    first = ItemVectors.open(write(tmp_path / "a")).fingerprint
    reordered = write(tmp_path / "b", (5, 7, -3), (NORTH_EAST, EAST, NORTH))
    other = write(tmp_path / "c", vectors=(EAST, NORTH, (3.0, 3.1)))
    assert first == ItemVectors.open(reordered).fingerprint
    assert first != ItemVectors.open(other).fingerprint
    assert first != ItemVectors.open(write(tmp_path / "d", (8, -3, 5))).fingerprint


def test_the_fingerprint_tells_the_same_bytes_of_another_type_apart(tmp_path):
    one = ItemVectors.open(write(tmp_path / "a", [7], [(1.0,)]))
    bytes_of_one = np.array([[1.0]], np.float32).view(np.int8)
    four = ItemVectors.open(write(tmp_path / "b", [7], bytes_of_one, "int8"))
    assert four.values.tobytes() == one.values.tobytes()
    assert four.fingerprint != one.fingerprint


def test_the_origin_is_given_or_these_values_alone(tmp_path):
    given = ItemVectors.open(write(tmp_path / "a", origin="scl-1"))
    other = ItemVectors.open(write(tmp_path / "b", (1, 2), (EAST, NORTH), origin="scl-1"))
    unknown = ItemVectors.open(write(tmp_path / "c"))
    assert given.origin == other.origin == "scl-1"
    assert given.fingerprint == unknown.fingerprint != other.fingerprint
    assert unknown.origin == f"imported-{unknown.fingerprint[:16]}"


def test_vectors_of_another_origin_are_refused_and_of_the_same_are_not(tmp_path):
    vectors = ItemVectors.open(write(tmp_path / "v", origin="scl-1"))
    check_origin(vectors, "scl-1", "make m")
    with pytest.raises(InputError, match="origin of make m, scl-2, got scl-1 of .*/v$"):
        check_origin(vectors, "scl-2", "make m")


def test_another_process_receives_the_folder_not_the_values(tmp_path):
    vectors = ItemVectors.open(write(tmp_path / "v", np.arange(5000), np.ones((5000, 8))))
    message = pickle.dumps(vectors)
    assert len(message) < 500
    assert (pickle.loads(message).values == vectors.values).all()


def test_huge_and_tiny_vectors_keep_their_direction(tmp_path):
    vectors = ItemVectors.open(write(tmp_path / "v", [1, 2], [(1e300, 1e300), (1e-300, -1e-300)]))
    assert np.allclose(vectors.values, np.array([[1, 1], [1, -1]]) / np.sqrt(2))


def test_a_single_value_is_127_in_int8_whatever_it_was(tmp_path):
    values = np.random.default_rng(0).normal(size=1000)[:, None]
    vectors = ItemVectors.open(write(tmp_path / "v", np.arange(1000), values, "int8"))
    assert (vectors.values == 127 * np.sign(values)).all()


def test_dequantised_int8_is_value_over_127():
    assert dequantise(torch.tensor([127, -127, 0], dtype=torch.int8)).tolist() == [1, -1, 0]
    assert dequantise(torch.tensor([0.5], dtype=torch.float64)).dtype == torch.float32


@pytest.mark.parametrize(
    ("ids", "vectors", "complaint"),
    [
        ((1, 2, 1), (EAST, NORTH, EAST), "item_id must be unique, got 1"),
        ((1, 2), (EAST, (0, 0)), "must not be zero, got item_id 2"),
        ((1, 2), ((np.nan, 1), EAST), "finite, got NaN or Inf for item_id 1"),
        ((1, 2), (EAST, (np.inf, 1)), "finite, got NaN or Inf for item_id 2"),
        ((), np.zeros((0, 2)), "must not be empty"),
        ((1,), (EAST, NORTH), r"\(N, D\), N = 1"),
    ],
)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_wrong_vectors_are_refused_by_item_and_leave_none(tmp_path, ids, vectors, complaint, dtype):
    with pytest.raises(InputError, match=complaint):
        write(tmp_path / "v", ids, vectors, dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_vector_that_int8_would_make_zero_is_refused(tmp_path):
    with pytest.raises(InputError, match="zero in int8, got item_id 4"):
        write(tmp_path / "v", [4], np.ones((1, 127 * 127 + 1)), "int8")


def test_space_is_reserved_before_the_first_vector_is_asked_for(tmp_path):
    """A disk that is full later would end the process with a bus error."""

    def blocks():
        (values,) = tmp_path.glob(".v.*/vectors.npy")
        reserved.append(values.stat().st_blocks * 512 >= values.stat().st_size > 4000 * 256 * 4)
        yield np.ones((4000, 256))

    reserved = []
    made_by = {"encoder": "scl", "modality": "image"}
    write_blocks(tmp_path / "v", np.arange(4000), blocks(), width=256, dtype="float32", **made_by)
    assert reserved == [True]


def test_an_existing_folder_is_never_overwritten(tmp_path):
    folder = write(tmp_path / "v")
    with pytest.raises(InputError, match="exists already"):
        write(folder)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        ItemVectors.open(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 1}, "format must be 2, got 1: make the item vectors again with apps.embed"),
        ({"origin": None}, "origin must be str, got None"),
        ({"dtype": "int4"}, "dtype must be int8 or float32, got 'int4'"),
        ({"items": 4}, r"must be int64 \(4,\)"),
        ({"width": 3}, r"must be float32 \(3, 3\)"),
        ({"encoder": None}, "encoder must be str, got None"),
    ],
)
def test_a_meta_file_that_lies_is_refused(tmp_path, change, complaint):
    folder = write(tmp_path / "v")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | change))
    with pytest.raises(InputError, match=complaint):
        ItemVectors.open(folder)


def test_garbled_files_are_refused_by_name(tmp_path):
    folder = write(tmp_path / "v")
    whole = (folder / "vectors.npy").read_bytes()
    (folder / "vectors.npy").write_bytes(whole[:-4])
    with pytest.raises(InputError, match=r"vectors.npy must be a whole"):
        ItemVectors.open(folder)
    (folder / "vectors.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"vectors.npy must be a whole"):
        ItemVectors.open(folder)
    (folder / "vectors.npy").write_bytes(whole)
    np.save(folder / "item_ids.npy", np.array([5, 5, 7]))
    with pytest.raises(InputError, match="strictly ascending"):
        ItemVectors.open(folder)
    (folder / "item_ids.npy").unlink()
    with pytest.raises(InputError, match="item_ids.npy must exist"):
        ItemVectors.open(folder)
    (folder / "meta.json").write_text("{")
    with pytest.raises(InputError, match="meta.json must be JSON"):
        ItemVectors.open(folder)
