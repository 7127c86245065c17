"""Parts: made once, whole or not at all, whoever makes them."""

import json
from pathlib import Path

import numpy as np
import pytest

from torchrec_mm.benchmarks.harness import on_fresh_ranks
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.runs.resumable_parts import claim_parts, encode_parts, read_part


class Stopped(BaseException):
    """What the process does not survive."""


def squares(part: int) -> dict[str, np.ndarray]:
    return {"number": np.array([part]), "squares": np.arange(part) ** 2}


def test_a_restart_makes_what_is_missing_and_nothing_else(worker, tmp_path):
    asked = []

    def make(part: int) -> dict[str, np.ndarray]:
        asked.append(part)
        if asked == [0, 1, 2]:
            raise Stopped
        return squares(part)

    with pytest.raises(Stopped):
        encode_parts(make, 4, tmp_path / "parts", worker, "test")
    encode_parts(make, 4, tmp_path / "parts", worker, "test")
    encode_parts(make, 4, tmp_path / "parts", worker, "test")
    assert asked == [0, 1, 2, 2, 3]
    assert sorted(entry.name for entry in (tmp_path / "parts").iterdir()) == [
        f"part-0000{part}.safetensors" for part in range(4)
    ]


def test_all_arrays_or_the_named_ones_come_back(worker, tmp_path):
    encode_parts(squares, 4, tmp_path, worker, "test")
    assert read_part(tmp_path, 3).keys() == {"number", "squares"}
    assert read_part(tmp_path, 0)["squares"].tolist() == []
    (named,) = read_part(tmp_path, 3, "squares").values()
    assert named.tolist() == [0, 1, 4] and named.dtype == np.int64


def test_a_part_that_is_missing_or_cut_off_is_named(worker, tmp_path):
    encode_parts(squares, 1, tmp_path, worker, "test")
    with pytest.raises(InputError, match="part-00001.safetensors must be a whole part"):
        read_part(tmp_path, 1)
    file = tmp_path / "part-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="part-00000.safetensors must be a whole part"):
        read_part(tmp_path, 0)


def test_parts_of_other_work_are_refused_by_the_field_that_differs(worker, tmp_path):
    work, folder = {"items": "ab", "batch_size": 64}, tmp_path / "parts"
    claim_parts(folder, work, worker)
    claim_parts(folder, dict(work), worker)
    assert json.loads((folder / "work.json").read_text()) == work
    with pytest.raises(InputError, match="batch_size must stay 64 to go on with .*, got 32"):
        claim_parts(folder, work | {"batch_size": 32}, worker)


def test_a_folder_of_something_else_is_not_claimed(worker, tmp_path):
    Path(tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="exists already"):
        claim_parts(tmp_path, {}, worker)


def complaint_of_a_rank(folder: Path) -> str:
    def make(part: int) -> dict[str, np.ndarray]:
        if part == 1:
            raise InputError("part 1 must be good, and is not")
        return squares(part)

    with process_group() as worker:
        try:
            encode_parts(make, 5, folder, worker, "test")
        except InputError as error:
            return str(error)
    return "none"


@pytest.mark.slow
def test_every_rank_has_the_words_of_the_one_that_met_bad_input(tmp_path):
    complaints = on_fresh_ranks(complaint_of_a_rank, tmp_path, world_size=2, threads=1)
    assert complaints == ["part 1 must be good, and is not"] * 2
    made = sorted(entry.name for entry in tmp_path.iterdir())
    assert made == [f"part-0000{part}.safetensors" for part in (0, 2, 4)]
