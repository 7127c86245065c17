"""Contents to disk: pieces of any kind of Arrow array, numbers by digest."""

import numpy as np
import pyarrow as pa
import pytest

from torchrec_mm.data.content.content_writer import ContentWriter, first_equal


def test_pieces_may_be_slices_and_empty_and_hold_nulls_alone(tmp_path):
    writer = ContentWriter(tmp_path / "text")
    whole = pa.array([b"left out", b"ab", None, b"", b"cde", b"left out"], pa.binary())
    for piece in (whole[1:5], whole[:0], whole[2:3], whole[4:5]):
        present = writer.add(piece, np.zeros(len(piece), dtype=bool))
        assert present.tolist() == [value.is_valid for value in piece]
    writer.finish(np.array([5, 4, 3, 2, 1, 0]))
    assert (tmp_path / "text" / "bytes.bin").read_bytes() == b"abcdecde"
    found = {
        name: np.load(tmp_path / "text" / f"{name}.npy", allow_pickle=False).tolist()
        for name in ("start", "length", "content")
    }
    assert found["length"] == [3, -1, 3, 0, -1, 2]
    assert found["start"][0] == 5 and found["start"][2] == 2 and found["start"][5] == 0
    assert found["content"] == [0, -1, 0, 3, -1, 5]


@pytest.mark.parametrize("half", [0, 1])
def test_contents_are_equal_where_both_halves_of_the_digest_are(half):
    digest = np.zeros((4, 2), np.uint64)
    digest[:, half] = [5, 4, 5, 2**64 - 1]
    present = np.array([True, True, True, False])
    assert first_equal(digest, present).tolist() == [0, 1, 0, -1]
    assert first_equal(digest[:0], present[:0]).shape == (0,)
