"""Text as ids: the same for ever, and back again."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchrec_mm.columns.parquet import write_table
from torchrec_mm.columns.text_ids import MAP_SCHEMA, IdTexts, hash_text, hash_texts, id_maps
from torchrec_mm.errors import InputError

TEXTS = st.text(st.characters(codec="utf-8"))


def test_a_text_has_the_same_id_for_ever():
    assert hash_text("abc") == 0x900150983CD24FB0 >> 1  # MD5 of RFC 1321's test suite
    assert hash_text("") == 0xD41D8CD98F00B204 >> 1


@given(st.lists(st.none() | TEXTS))
def test_ids_are_the_first_63_bits_of_the_md5_of_each_text(texts):
    for column in (pa.array(texts, pa.string()), pa.chunked_array([texts[:2], texts[2:]], "str")):
        ids = hash_texts(column).to_pylist()
        for text, number in zip(texts, ids, strict=True):
            if text is None:
                assert number is None
            else:
                digest = hashlib.md5(text.encode()).hexdigest()
                assert number == int(digest[:16], 16) // 2 and 0 <= number < 2**63


def test_a_map_gives_the_texts_of_the_ids_that_are_asked_for(tmp_path):
    texts = sorted("abcdefgh", key=hash_text)
    ids = np.array([hash_text(text) for text in texts])
    write_table(tmp_path / "map.parquet", pa.table([ids, texts], schema=MAP_SCHEMA), 3)
    asked = ids[[5, 0, 5]]
    found = IdTexts(tmp_path / "map.parquet", asked)
    assert found(asked).to_pylist() == [texts[5], texts[0], texts[5]]
    assert found(asked[:0]).to_pylist() == []
    for other in (7, ids[1]):
        with pytest.raises(InputError, match=f"map.parquet must .* every id, got none for {other}"):
            found(np.array([ids[5], other]))


def test_a_folder_without_a_map_is_refused(tmp_path):
    with pytest.raises(InputError, match="ids must be a folder with users.parquet or items.parq"):
        id_maps(tmp_path)
    (tmp_path / "items.parquet").touch()
    assert id_maps(tmp_path) == {"item_id": tmp_path / "items.parquet"}
