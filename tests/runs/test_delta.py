"""A delta is what differs in any bit between two checkpoints, written the same each time."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torchrec_mm.errors import InputError
from torchrec_mm.runs import tensor_shards
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.delta import (
    Header,
    difference,
    last_delta,
    numbers_of,
    path_of,
    read_delta,
    write_delta,
)
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import TensorShards

ROWS = 9
HEADER = Header(number=1, step=2, base_step=1, follows="")


def tensors() -> dict[str, Tensor]:
    """Of a model with tables of several types, and of its optimizer."""
    torch.manual_seed(0)
    return {
        "model.tables.wide": torch.randn(ROWS, 4),
        "model.tables.odd": torch.randn(ROWS, 3),
        "model.tables.half": torch.randn(ROWS, 3).half(),
        "model.tables.ids": torch.arange(ROWS),
        "model.tables.still": torch.randn(ROWS, 2),
        "model.network.weight": torch.randn(3, 3),
        "model.network.make.weight": torch.randn(2),
        "optimizer.tables.wide.sum": torch.zeros(ROWS),
    }


def saved(folder: Path, step: int, values: Mapping[str, Tensor]) -> Path:
    with Checkpointer(folder, keep=9) as checkpointer:
        shards = {key: TensorShards.of(tensor) for key, tensor in values.items()}
        checkpointer.save(shards, Position(step=step))
    return find_checkpoint(folder, str(step)).folder


@pytest.fixture
def checkpoints(worker, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Two, that were not cut into the same chunks."""
    values = tensors()
    values["model.tables.wide"][0, 0] = 0.0
    before = saved(tmp_path / "checkpoints", 1, values)
    values["model.tables.wide"][0, 0] = -0.0  # equal, and other bits
    values["model.tables.wide"][7, 3] += 1
    values["model.tables.odd"][8] += 1
    values["model.tables.half"][2, 2] += 1
    values["model.tables.ids"][[3, 4]] = -1
    values["optimizer.tables.wide.sum"] += 1
    monkeypatch.setattr(tensor_shards, "CHUNK_BYTES", 40)
    return before, saved(tmp_path / "checkpoints", 2, values)


def test_rows_that_differ_in_any_bit_are_in_it_and_no_others(checkpoints):
    delta = difference(*checkpoints, HEADER)
    found = {key: rows.tolist() for key, (rows, _) in delta.rows.items()}
    assert found == {
        "tables.wide": [0, 7],
        "tables.odd": [8],
        "tables.half": [2],
        "tables.ids": [3, 4],
    }
    assert [*delta.dense] == ["network.weight"]  # whole; MAKE is frozen
    _, values = delta.rows["tables.ids"]
    assert values.tolist() == [-1, -1]
    assert str(delta.rows["tables.wide"][1][0, 0].item()) == "-0.0"


def test_it_is_read_as_it_was_written_and_written_the_same_again(checkpoints, tmp_path):
    deltas = tmp_path / "deltas"
    assert numbers_of(deltas) == []
    write_delta(deltas, difference(*checkpoints, HEADER))
    first = path_of(deltas, 1).read_bytes()
    read = read_delta(deltas, 1)
    assert read.header == HEADER
    assert read.checksum == difference(*checkpoints, HEADER).checksum
    write_delta(deltas, read)
    assert path_of(deltas, 1).read_bytes() == first
    assert numbers_of(deltas) == [1] and [*deltas.iterdir()] == [path_of(deltas, 1)]


def test_every_byte_of_a_delta_counts(checkpoints, tmp_path):
    write_delta(tmp_path, difference(*checkpoints, HEADER))
    file = path_of(tmp_path, 1)
    whole = file.read_bytes()
    padding = {place for place, byte in enumerate(whole[8:], 8) if byte == ord(" ")}
    for place in range(0, len(whole), 7):
        if place not in padding:  # of JSON
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
            with pytest.raises(InputError, match="must be"):
                read_delta(tmp_path, 1)
    file.write_bytes(whole)
    read_delta(tmp_path, 1)
    with pytest.raises(InputError, match="must be a whole delta"):
        read_delta(tmp_path, 2)


def test_a_delta_of_another_number_is_refused(checkpoints, tmp_path):
    write_delta(tmp_path, difference(*checkpoints, HEADER))
    path_of(tmp_path, 1).rename(path_of(tmp_path, 2))
    with pytest.raises(InputError, match="must be delta 2 as it was written, got 1"):
        read_delta(tmp_path, 2)


def test_a_checkpoint_of_a_run_that_publishes_none_has_no_delta(checkpoints):
    assert last_delta(checkpoints[0]) is None
    (checkpoints[0] / "stream.json").write_text('{"delta": "3"}')
    with pytest.raises(InputError, match="must hold the number of a delta, got '3'"):
        last_delta(checkpoints[0])
