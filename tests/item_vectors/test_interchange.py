"""`vectors/` in and out through the commands."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from apps import export_vectors, import_vectors
from torchrec_mm.columns.text_ids import hash_text
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors import interchange, writer
from torchrec_mm.item_vectors.store import ItemVectors


def put(folder, ids, vectors, kind=None, name="part-0", **options):
    kind = kind or pa.list_(pa.float32())
    folder.mkdir(exist_ok=True)
    table = pa.table({"item_id": pa.array(ids, pa.int64()), "vector": pa.array(vectors, kind)})
    pq.write_table(table, folder / f"{name}.parquet", **options)


def imported(tmp_path, *flags):
    out = tmp_path / "imported"
    import_vectors.main(["--vectors", str(tmp_path / "in"), "--run_dir", str(out), *flags])
    return ItemVectors.open(out)


@pytest.fixture
def tiny_blocks(monkeypatch):
    monkeypatch.setattr(interchange, "BATCH_ROWS", 7)
    monkeypatch.setattr(writer, "BLOCK_VALUES", 50)


def test_int8_comes_out_exactly_as_it_went_in(tmp_path, tiny_blocks):
    generator = np.random.default_rng(0)
    ids = generator.choice(2**62, 100, replace=False) - 2**61
    values = generator.integers(-128, 128, (100, 16), dtype=np.int8)
    int8_list = pa.list_(pa.int8())
    put(tmp_path / "in", ids[:60], values[:60].tolist(), int8_list, "b", row_group_size=11)
    put(tmp_path / "in", ids[60:], values[60:].tolist(), int8_list, "a")
    imported(tmp_path)
    flags = ("--vectors", str(tmp_path / "imported"), "--run_dir", str(tmp_path / "out"))
    export_vectors.main(flags)
    table = pq.read_table(tmp_path / "out")
    assert table.schema.field("vector").type == int8_list
    expected = {int(i): v.tolist() for i, v in zip(ids, values, strict=True)}
    assert dict(zip(*table.to_pydict().values(), strict=True)) == expected


def test_exported_floats_import_to_the_same_vectors(tmp_path, tiny_blocks):
    generator = np.random.default_rng(0)
    put(tmp_path / "in", range(100), generator.normal(size=(100, 16)).tolist())
    first = imported(tmp_path)
    interchange.export_parquet(first, tmp_path / "out")
    interchange.import_parquet(tmp_path / "out", tmp_path / "again")
    again = ItemVectors.open(tmp_path / "again")
    assert np.allclose(first.values, again.values, atol=1e-7)
    assert np.allclose(np.linalg.norm(first.values, axis=1), 1)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_the_origin_goes_out_and_comes_back(tmp_path, dtype):
    put(tmp_path / "in", [1, 2], [[3.0, 4.0], [1.0, 0.0]])
    first = imported(tmp_path)
    assert first.origin == f"imported-{first.fingerprint[:16]}"
    interchange.export_parquet(first, tmp_path / "out")
    interchange.import_parquet(tmp_path / "out", tmp_path / "again", dtype=dtype)
    assert ItemVectors.open(tmp_path / "again").origin == first.origin


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "dictionary"])
def test_ids_that_are_text_become_the_numbers_that_data_of_such_ids_have(tmp_path, kind):
    texts = ["shirt-red", "hat", "Ünlü"]
    ids = pa.array(texts).dictionary_encode() if kind == "dictionary" else pa.array(texts, kind)
    (tmp_path / "in").mkdir()
    table = pa.table({"item_id": ids, "vector": [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    vectors = imported(tmp_path)
    assert vectors.item_ids.tolist() == sorted(map(hash_text, texts))
    found = vectors.values[vectors.item_ids.tolist().index(hash_text("hat"))]
    assert found.tolist() == [0.0, 1.0]


def test_text_in_one_file_and_numbers_in_the_next_are_refused(tmp_path):
    put(tmp_path / "in", [1, 2], [[3.0, 4.0], [1.0, 0.0]])
    table = pa.table({"item_id": ["a"], "vector": [[1.0, 0.0]]})
    pq.write_table(table, tmp_path / "in" / "part-1.parquet")
    with pytest.raises(
        InputError, match="part-1.parquet column item_id must be numbers or text as"
    ):
        imported(tmp_path)


def test_files_of_two_origins_are_refused(tmp_path):
    put(tmp_path / "in", [1], [[3.0, 4.0]])
    interchange.export_parquet(imported(tmp_path), tmp_path / "out")
    put(tmp_path / "out", [2], [[3.0, 4.0]], name="zz")
    with pytest.raises(InputError, match="zz.parquet must hold vectors of the origin of part-0"):
        interchange.import_parquet(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.list_(pa.float16()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
    ],
)
def test_floats_of_any_precision_and_list_kind_are_normalised(tmp_path, kind):
    values = np.array([[3, 4], [0, -2]], dtype=kind.value_type.to_pandas_dtype())
    put(tmp_path / "in", [2, 1], list(values), kind)
    vectors = imported(tmp_path)
    assert np.allclose(vectors.values, [[0, -1], [0.6, 0.8]])
    assert vectors.encoder == "imported"


def test_a_fixed_size_list_of_int8_is_kept(tmp_path):
    put(tmp_path / "in", [2, 1], [[3, 4], [-128, 5]], pa.list_(pa.int8(), 2))
    assert imported(tmp_path).values.tolist() == [[-128, 5], [3, 4]]


def test_int8_asked_for_as_float_is_dequantised_to_unit_length(tmp_path):
    put(tmp_path / "in", [1], [[30, 40]], pa.list_(pa.int8()))
    vectors = imported(tmp_path, "--dtype", "float32", "--encoder", "scl", "--modality", "text")
    assert np.allclose(vectors.values, [[0.6, 0.8]])
    assert (vectors.dtype, vectors.encoder, vectors.modality) == (np.float32, "scl", "text")


def test_floats_asked_for_as_int8_are_quantised(tmp_path):
    put(tmp_path / "in", [1], [[3.0, -4.0]])
    assert imported(tmp_path, "--dtype", "int8").values.tolist() == [[76, -101]]


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_tensors_of_one_dimension_are_vectors(tmp_path, dtype):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[3, 4], [0, -2]], dtype))
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"item_id": [2, 1], "vector": tensors}), tmp_path / "in" / "a.parquet")
    values = imported(tmp_path).values
    assert np.allclose(values, [[0, -1], [0.6, 0.8]] if dtype == np.float32 else [[0, -2], [3, 4]])


@pytest.mark.parametrize(
    ("ids", "vectors", "complaint"),
    [
        ([1, 2], [[1.0, 2.0], [1.0]], "one length, 2, got 1 for item_id 2"),
        ([1, 2], [[1.0], None], "got null for item_id 2"),
        ([1, 2], [None, [1.0]], "got null for item_id 1"),
        ([1, 2], [[1.0, 1.0], [1.0, None]], "no nulls, got one for item_id 2"),
        ([1, 2], [[1.0], [float("nan")]], "finite, got NaN or Inf for item_id 2"),
        ([1, 2], [[1.0], [float("-inf")]], "finite, got NaN or Inf for item_id 2"),
        ([1, 2], [[1.0], [0.0]], "zero, got item_id 2"),
        ([1, 2, 2], [[1.0]] * 3, "item_id must be unique, got 2"),
        ([1, None], [[1.0]] * 2, "item_id must not be null, got 1"),
        ([], [], "at least one vector, got 0"),
        ([1], [[]], "width 0"),
    ],
)
def test_wrong_rows_are_refused_by_item_and_leave_nothing(tmp_path, ids, vectors, complaint):
    put(tmp_path / "in", ids, vectors)
    with pytest.raises(InputError, match=complaint):
        imported(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_a_zero_int8_vector_is_refused(tmp_path):
    put(tmp_path / "in", [8, 9], [[1, 0], [0, 0]], pa.list_(pa.int8()))
    with pytest.raises(InputError, match="zero in int8, got item_id 9"):
        imported(tmp_path)


def test_two_files_must_agree_on_type_and_length(tmp_path):
    put(tmp_path / "in", [1], [[1.0]], name="a")
    put(tmp_path / "in", [2], [[1.0, 2.0]], name="b")
    with pytest.raises(InputError, match="b.parquet column vector must have one length, 1, got 2"):
        imported(tmp_path)
    put(tmp_path / "in", [2], [[1]], pa.list_(pa.int8()), name="b")
    with pytest.raises(InputError, match="b.parquet column vector must hold float32"):
        imported(tmp_path)


TENSORS = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((1, 2, 2), np.float32))
VIEWS = pa.array([[1.0]], pa.list_view(pa.float32()))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"item": [1], "vector": [[1.0]]}, "must have a column item_id, got item, vector"),
        ({"item_id": [1]}, "must have a column vector"),
        ({"item_id": [""], "vector": [[1.0]]}, "item_id must not be empty text"),
        ({"item_id": ["a", None], "vector": [[1.0]] * 2}, "item_id must not be null, got 1"),
        ({"item_id": ["a", "a"], "vector": [[1.0]] * 2}, "item_id must"),
        ({"item_id": [1], "vector": [1.0]}, "vector must be list<float> or list<int8>, got double"),
        ({"item_id": [1], "vector": [[1]]}, "vector must be list<float> or list<int8>, got list"),
        ({"item_id": [1], "vector": TENSORS}, "vector must be list<float> or list<int8>, got ext"),
        ({"item_id": [1], "vector": VIEWS}, "vector must be list<float> or list<int8>, got list_"),
        (
            {"item_id": [1.0], "vector": [[1.0]]},
            "part.parquet column item_id must be int64 or text, got d",
        ),
        (
            {"item_id": pa.array([2**63], pa.uint64()), "vector": [[1.0]]},
            "part.parquet column item_id must be int64, got uint64: .* not in range",
        ),
    ],
)
def test_wrong_columns_are_refused_by_name(tmp_path, table, complaint):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(table), tmp_path / "in" / "part.parquet")
    with pytest.raises(InputError, match=complaint):
        imported(tmp_path)


def test_missing_empty_and_garbled_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        imported(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="at least one .parquet file"):
        imported(tmp_path)
    (tmp_path / "in" / "part.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"part.parquet must be a readable Parquet"):
        imported(tmp_path)


def test_a_damaged_page_is_the_users_mistake_not_a_crash(tmp_path):
    generator = np.random.default_rng(0)
    put(tmp_path / "in", range(500), generator.normal(size=(500, 8)).tolist())
    file = tmp_path / "in" / "part-0.parquet"
    bytes_ = bytearray(file.read_bytes())
    bytes_[4:4000] = b"\xff" * 3996
    file.write_bytes(bytes_)
    with pytest.raises(InputError, match="could not be read"):
        imported(tmp_path)


def test_columns_may_have_other_names_and_one_file_is_enough(tmp_path):
    table = {"205": [2, 1], "205_c": pa.array([[3, 4], [-128, 5]], pa.list_(pa.int8()))}
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "scl_embedding_int8_p90.parquet"
    pq.write_table(pa.table(table), file)
    pq.write_table(pa.table({"205": [1]}), file.with_name("item_features.parquet"))
    flags = ["--item_column", "205", "--vector_column", "205_c"]
    out = ["--run_dir", str(tmp_path / "of_one_file")]
    import_vectors.main(["--vectors", str(file), *flags, *out])
    vectors = ItemVectors.open(tmp_path / "of_one_file")
    assert vectors.item_ids.tolist() == [1, 2]
    assert vectors.values.tolist() == [[-128, 5], [3, 4]]
    with pytest.raises(InputError, match="item_features.parquet must have a column 205_c"):
        imported(tmp_path, *flags)
