"""Texts of a table's rows, read from the vocabularies a block at a time."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from torchrec_mm.data.contract.features import TextIds
from torchrec_mm.data.encoded.vocabulary import Vocabularies, Vocabulary
from torchrec_mm.scoring.export import SavedTable


@pytest.fixture
def texts(tmp_path) -> pa.Array:
    """Of rows 2, 3, ...; the first is null, the last empty, with no byte of its own."""
    text_ids = TextIds()
    ids = np.unique(text_ids.ids(pa.array(["", "a", None, "ü", "bb"])))
    ordered = text_ids.texts(ids)
    ordered = pa.concat_arrays([ordered.drop_null().sort(), pa.nulls(1, ordered.type)])[::-1]
    known = Vocabulary(ids, np.empty(0, np.int64), ordered)
    Vocabularies({"device": known}, {}, {}).save(tmp_path / "vocabularies")
    return ordered


@pytest.fixture
def table(tmp_path, monkeypatch) -> SavedTable:
    monkeypatch.setattr(SavedTable, "__post_init__", lambda table: None)  # no checkpoint here
    return SavedTable(Path(), "", tmp_path / "vocabularies", "request/device")


def test_any_block_of_rows_has_the_texts_of_these_rows(texts, table):
    assert texts[len(texts) - 1].as_py() == ""
    for start in range(7):
        for stop in range(max(start + 1, 3), 8):
            found = table.texts(start, stop).to_pylist()
            assert [text or "" for text in found] == [
                text or "" for text in texts.to_pylist()[max(start - 2, 0) : stop - 2]
            ]
