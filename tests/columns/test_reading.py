"""However a file fails, one line of the user's names it."""

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from torchrec_mm.columns.reading import input_errors, read_footer, read_metadata
from torchrec_mm.errors import InputError

ARROW = [
    kind
    for kind in vars(pa.lib).values()
    if isinstance(kind, type) and issubclass(kind, pa.ArrowException) and kind != pa.ArrowCancelled
]


@pytest.mark.parametrize("kind", [*ARROW, OSError, PermissionError], ids=lambda kind: kind.__name__)
def test_whatever_arrow_or_the_disk_raises_names_the_file(kind):
    with pytest.raises(InputError, match="f column c could not be read: .*why"):
        with input_errors("f column c"):
            raise kind("why")


def test_bytes_that_are_no_text_name_the_file():
    with pytest.raises(InputError, match="f must be text: 'utf-8' codec can't decode byte 0xe9"):
        with input_errors("f", "must be text"):
            b"caf\xe9".decode()


@pytest.mark.parametrize("error", [pa.ArrowCancelled("stop"), KeyError("ours"), InputError("said")])
def test_other_exceptions_keep_their_kind(error):
    with pytest.raises(type(error)) as raised:
        with input_errors("f"):
            raise error
    assert raised.value is error


def test_a_footer_tells_columns_rows_and_notes(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [1, 2]}).replace_schema_metadata({"k": "v"}), file)
    footer = read_footer(file)
    assert (footer.file, footer.schema.names, footer.num_rows) == (file, ["a"], 2)
    assert footer.notes[b"k"] == b"v"


def test_a_column_name_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"caXX": [2]}), file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"caXX", b"ca\xe9\xe9"))
    with pytest.raises(InputError, match="a.parquet must be a readable Parquet file: .*0xe9"):
        read_footer(file)


class Keys(pe.KmsClient):
    """Keys that lie open."""

    def __init__(self) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, master: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, key: bytes, master: str) -> bytes:
        return base64.b64decode(key)


def write_encrypted(file: Path, readable_footer: bool) -> None:
    options = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["a"]}, plaintext_footer=readable_footer
    )
    factory = pe.CryptoFactory(lambda _: Keys())
    keys = factory.file_encryption_properties(pe.KmsConnectionConfig(), options)
    table = pa.table({"a": [1], "b": [2]})
    with pq.ParquetWriter(file, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("readable_footer", [True, False])
def test_an_encrypted_file_is_refused(tmp_path, readable_footer):
    write_encrypted(tmp_path / "a.parquet", readable_footer)
    with pytest.raises(InputError, match="a.parquet must .*encrypted"):
        read_metadata(tmp_path / "a.parquet")
