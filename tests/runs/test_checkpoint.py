"""Checkpoints: whole or not at all, read by anyone in any shards, every misfit named."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from tests.helpers import forks
from torchrec_mm.errors import InputError
from torchrec_mm.runs import tensor_shards
from torchrec_mm.runs.checkpoint import (
    checkpoint_shapes,
    load_checkpoint,
    read_checkpoint,
    read_row_blocks,
)
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import TensorShards

TABLE = torch.arange(70.0).view(10, 7)


def saved(folder: Path, **tensors: Tensor) -> Path:
    """A checkpoint of step 3 with the given tensors, or with ``a``, ones."""
    given = tensors or {"a": torch.ones(2, 3)}
    with Checkpointer(folder) as checkpointer:
        shards = {f"model.{k}": TensorShards.of(t) for k, t in given.items()}
        checkpointer.save(shards, Position(step=3))
    return find_checkpoint(folder).folder


def part(rows: slice, columns: slice) -> tuple[TensorShards, Tensor]:
    """A part of something like TABLE, and its values, still zero."""
    values = torch.zeros_like(TABLE[rows, columns])
    return TensorShards(TABLE.size(), TABLE.dtype, (((rows.start, columns.start), values),)), values


@pytest.fixture
def small_chunks(monkeypatch):
    """Three rows of TABLE in each chunk."""
    monkeypatch.setattr(tensor_shards, "CHUNK_BYTES", 3 * 7 * 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bfloat16])
def test_tensors_come_back_as_they_were(dtype, worker, tmp_path):
    given = {"a": TABLE.to(dtype), "b": torch.tensor(4, dtype=dtype), "none": TABLE[:0]}
    folder = saved(tmp_path, **given)
    back = {name: torch.zeros_like(tensor) for name, tensor in given.items()}
    load_checkpoint(folder, {f"model.{name}": TensorShards.of(t) for name, t in back.items()})
    assert all(torch.equal(back[name], given[name]) for name in given)
    assert checkpoint_shapes(folder) == {"model.a": (10, 7), "model.b": (), "model.none": (0, 7)}


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(0, 10), slice(0, 7)), (slice(2, 9), slice(0, 7)), (slice(1, 5), slice(3, 7))],
)
def test_any_rectangle_is_read_from_any_chunks(rows, columns, worker, small_chunks, tmp_path):
    folder = saved(tmp_path, a=TABLE)
    shards, values = part(rows, columns)
    load_checkpoint(folder, {"model.a": shards})
    assert torch.equal(values, TABLE[rows, columns])


def test_rows_are_read_in_blocks_of_bounded_size(worker, small_chunks, tmp_path):
    blocks = list(read_row_blocks(saved(tmp_path, a=TABLE), "model.a"))
    assert [(start, len(rows)) for start, rows in blocks] == [(0, 3), (3, 3), (6, 3), (9, 1)]
    assert torch.equal(torch.cat([rows for _, rows in blocks]), TABLE)


def test_any_tool_for_such_checkpoints_reads_ours(worker, small_chunks, tmp_path):
    tensors = {"model.a": torch.zeros(10, 7)}
    dcp.load(tensors, checkpoint_id=str(saved(tmp_path, a=TABLE)))
    assert torch.equal(tensors["model.a"], TABLE)


def test_ours_is_read_without_the_pickle(worker, tmp_path):
    folder = saved(tmp_path)
    (folder / ".metadata").unlink()
    assert read_checkpoint(folder, "model.")["a"].tolist() == [[1.0] * 3] * 2


def test_a_plain_process_reads_without_a_process_group(worker, tmp_path):
    program = (
        "import sys, pathlib; from torchrec_mm.runs.checkpoint import read_checkpoint;"
        "print(read_checkpoint(pathlib.Path(sys.argv[1]), 'model.')['a'].tolist())"
    )
    done = forks.run([sys.executable, "-c", program, saved(tmp_path)])
    assert done.stdout == "[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]\n", done.stderr
    assert "unavailable or uninitialized" not in done.stderr


def test_every_key_and_shape_that_does_not_fit_is_named(worker, tmp_path):
    folder = saved(tmp_path, a=torch.ones(2, 3), d=torch.ones(1))
    wanted = {"a": torch.zeros(5, 3), "b": torch.zeros(1), "c": torch.zeros(1)}
    with pytest.raises(InputError) as error:
        load_checkpoint(folder, {f"model.{k}": TensorShards.of(t) for k, t in wanted.items()})
    assert str(error.value) == (
        f"{folder} must fit the model: model.a is (2, 3), not (5, 3); model.b is missing; "
        "model.c is missing; model.d is unknown"
    )
    assert not wanted["a"].any()


def test_keys_may_be_ignored_in_the_checkpoint_but_not_in_the_model(worker, tmp_path):
    folder = saved(tmp_path, a=torch.ones(1), old=torch.ones(1))
    a, new = torch.zeros(1), torch.zeros(1)
    load_checkpoint(folder, {"model.a": TensorShards.of(a)}, ignore=("model.o",))
    assert a.item() == 1
    with pytest.raises(InputError, match="model.new is missing"):
        load_checkpoint(folder, {"model.new": TensorShards.of(new)}, ignore=("model.",))


def test_what_another_rank_holds_alone_is_not_unknown(worker, tmp_path, monkeypatch):
    """The state of a table's optimizer has no part on ranks without a row of the table."""
    folder, a = saved(tmp_path, a=torch.ones(1), b=torch.ones(2)), torch.zeros(1)

    def gather(everyone: list, mine: dict) -> None:
        everyone[:] = [{"model.b": (2,)}, mine]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    load_checkpoint(folder, {"model.a": TensorShards.of(a)})
    assert a.item() == 1


def test_keys_that_are_allowed_by_name_keep_the_values_they_have(worker, tmp_path):
    folder = saved(tmp_path, a=torch.ones(1), old=torch.ones(1), other=torch.ones(3))
    mine = {"a": torch.zeros(1), "new": torch.full((1,), 7.0), "other": torch.zeros(4)}
    wanted = {f"model.{name}": TensorShards.of(tensor) for name, tensor in mine.items()}
    load_checkpoint(folder, wanted, allow=("model.new", "model.o"))
    assert [tensor.tolist() for tensor in mine.values()] == [[1], [7], [0] * 4]


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_a_folder_that_is_no_checkpoint_is_named(make, worker, tmp_path):
    make(tmp_path / "run")
    with pytest.raises(InputError, match="run must be a checkpoint: no index.json in it"):
        load_checkpoint(tmp_path / "run", {})


def test_a_missing_shard_file_is_named(worker, tmp_path):
    folder = saved(tmp_path)
    (folder / "__0_0.distcp").unlink()
    with pytest.raises(InputError, match="__0_0.distcp must be there: the checkpoint is incompl"):
        read_checkpoint(folder, "model.")


def test_a_shard_file_that_was_cut_short_is_named(worker, tmp_path):
    folder = saved(tmp_path, a=torch.ones(2, 3), b=torch.ones(70))
    size = (folder / "__0_0.distcp").stat().st_size
    os.truncate(folder / "__0_0.distcp", size - 1)
    index = json.loads((folder / "index.json").read_text())
    for order in (list, reversed):  # whichever is named last, one of the two lies at the end
        tensors = dict(order(index["tensors"].items()))
        (folder / "index.json").write_text(json.dumps(index | {"tensors": tensors}))
        with pytest.raises(InputError, match=f"must hold {size} bytes, got {size - 1}"):
            read_checkpoint(folder, "model.")


def test_an_index_that_lacks_a_chunk_is_not_believed(worker, small_chunks, tmp_path):
    folder = saved(tmp_path, a=TABLE)
    index = json.loads((folder / "index.json").read_text())
    index["tensors"]["model.a"]["chunks"].pop()
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="index.json must hold all 70 numbers of model.a, got 63"):
        read_checkpoint(folder, "model.")


def test_a_checkpoint_may_be_copied_elsewhere(worker, tmp_path):
    copy = shutil.copytree(saved(tmp_path / "run"), tmp_path / "copy")
    shutil.rmtree(tmp_path / "run")
    assert read_checkpoint(copy, "model.")["a"].sum() == 6
