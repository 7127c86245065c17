"""Saving while training goes on: one at a time, whole or not at all, the last and the best kept."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from tests.helpers.runs import Stopped, train_ranker
from torchrec_mm.errors import InputError
from torchrec_mm.runs import checkpoint_folders
from torchrec_mm.runs import checkpointer as checkpointer_module
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint, list_checkpoints
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import TensorShards
from torchrec_mm.train import fit


def save(checkpointer: Checkpointer, step: int, metric: float | None = None, **more) -> None:
    """A checkpoint whose one number is its step."""
    tensor = torch.full((2, 3), float(step))
    checkpointer.save({"model.a": TensorShards.of(tensor)}, Position(step=step), metric, **more)


def steps(folder: Path) -> list[int]:
    return [checkpoint.position.step for checkpoint in list_checkpoints(folder)]


def value_in(folder: Path) -> float:
    return read_checkpoint(folder, "model.")["a"][0, 0].item()


@contextmanager
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """For the block: nothing is written before the event is set."""
    go, save_now = threading.Event(), checkpointer_module.dcp.save

    def later(*args, **kwargs):
        assert go.wait(60)
        return save_now(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer_module.dcp, "save", later)
        yield go


def test_training_goes_on_and_what_it_changes_is_not_saved(worker, tmp_path, monkeypatch):
    tensor = torch.ones(2, 3)
    with held_back(monkeypatch) as go, Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"model.a": TensorShards.of(tensor)}, Position(step=1))
        assert steps(tmp_path) == []
        tensor.fill_(5)
        go.set()
        checkpointer.wait()
        assert value_in(find_checkpoint(tmp_path).folder) == 1


def test_on_a_gpu_the_thread_that_writes_works_on_its_ranks_device(worker, tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    with monkeypatch.context() as patch:
        note = lambda device: taken.append((device, threading.current_thread().name))  # noqa: E731
        patch.setattr(torch.cuda, "set_device", note)
        with Checkpointer(tmp_path) as checkpointer:
            save(checkpointer, 1)
    assert taken == [(3, "checkpoint_0")]
    assert steps(tmp_path) == [1]


def test_a_save_copies_into_the_memory_that_was_reserved(worker, tmp_path, monkeypatch):
    shards = {"model.a": TensorShards.of(torch.ones(2, 3))}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.reserve(shards)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", None)  # there is nothing left to allocate
            copied = checkpointer.host_copy.take(shards)
        (buffer,) = checkpointer.host_copy.buffers["model.a"]
        assert copied["model.a"].parts[0][1].data_ptr() == buffer.data_ptr()
        assert buffer.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_what_is_copied_from_a_gpu_is_pinned(device, pinned, monkeypatch):
    asked, tensor = [], Mock(shape=(2, 3), dtype=torch.float32, is_cuda=device == "cuda")
    own = Mock(chunks=lambda: [((0, 0), tensor)])
    monkeypatch.setattr(torch, "empty", lambda *args, **how: asked.append(how["pin_memory"]))
    checkpointer_module.HostCopy().reserve({"model.a": own})
    assert asked == [pinned]


def test_memory_for_all_tables_is_reserved_before_the_first_step(market, tmp_path, monkeypatch):
    reserved: list[str] = []

    def first_step(loop, train):
        reserved.extend(loop.checkpointer.host_copy.buffers)
        raise Stopped

    monkeypatch.setattr(fit.Loop, "train_epoch", first_step)
    with pytest.raises(Stopped):
        train_ranker(market, tmp_path / "run", "id")
    tables = [key for key in reserved if key.endswith("item_id_table.weight")]
    assert tables and [key for key in reserved if key.startswith("optimizer.") and "item_id" in key]


def test_a_save_waits_for_the_one_before(worker, tmp_path, monkeypatch):
    with held_back(monkeypatch) as go, Checkpointer(tmp_path, keep=9) as checkpointer:
        save(checkpointer, 1)
        second = threading.Thread(target=save, args=(checkpointer, 2))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        go.set()
        second.join()
        assert 1 in steps(tmp_path)
    assert [value_in(c.folder) for c in list_checkpoints(tmp_path)] == [1, 2]


def test_a_step_that_was_saved_already_gets_the_later_position_and_metric(worker, tmp_path):
    """As where a run was stopped between the last step of an epoch and the epoch's end."""
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 3)
        shards = {"model.a": TensorShards.of(torch.zeros(2, 3))}
        checkpointer.save(shards, Position(step=3, epoch=1), 0.75)
    (latest,) = list_checkpoints(tmp_path)
    assert (latest.position, latest.metric) == (Position(step=3, epoch=1), 0.75)
    assert value_in(latest.folder) == 3


def test_the_latest_is_the_one_of_most_steps_however_many_digits_they_take(tmp_path):
    for step in (100_000_000, 99_999_999, 7):
        folder = checkpoint_folders.folder_of(tmp_path, step)
        folder.mkdir()
        checkpoint_folders.write_state(folder, Position(step=step), None)
    assert steps(tmp_path) == [7, 99_999_999, 100_000_000]
    assert find_checkpoint(tmp_path).position.step == 100_000_000


def test_a_checkpoint_has_no_name_until_all_of_it_is_on_disk(worker, tmp_path, monkeypatch):
    put, seen = checkpoint_folders.complete_checkpoint, []

    def watched(aside, *args):
        seen.append((sorted(path.name for path in aside.iterdir()), steps(tmp_path)))
        put(aside, *args)

    monkeypatch.setattr(checkpointer_module, "complete_checkpoint", watched)
    (tmp_path / "note.json").write_text("{}")
    with Checkpointer(tmp_path / "checkpoints") as checkpointer:
        save(checkpointer, 7, config_files=[tmp_path / "note.json"])
    assert seen == [([".metadata", "__0_0.distcp", "index.json"], [])]
    folder = tmp_path / "checkpoints" / "step-00000007"
    assert {path.name for path in folder.iterdir()} == {*seen[0][0], "state.json", "note.json"}


@pytest.mark.parametrize(
    ("keep", "metrics", "left"),
    [
        (1, [None] * 4, [4]),
        (2, [None] * 4, [3, 4]),
        (9, [None] * 4, [1, 2, 3, 4]),
        (1, [0.5, 0.7, None, 0.6], [2, 4]),
        (1, [0.5, 0.6, 0.7, None], [3, 4]),
        (2, [0.7, 0.7, 0.1, 0.2], [1, 3, 4]),
    ],
)
def test_the_last_ones_and_the_best_stay(keep, metrics, left, worker, tmp_path):
    with Checkpointer(tmp_path, keep) as checkpointer:
        for step, metric in enumerate(metrics, 1):
            save(checkpointer, step, metric)
    assert steps(tmp_path) == left
    assert len(list(tmp_path.iterdir())) == len(left)


def test_one_is_found_by_its_step_as_the_latest_or_as_the_best(worker, tmp_path):
    with pytest.raises(InputError, match="must hold a checkpoint: training has saved none"):
        find_checkpoint(tmp_path)
    with Checkpointer(tmp_path, 9) as checkpointer:
        save(checkpointer, 2)
        with pytest.raises(InputError, match="must not be best: .* measured no test AUC"):
            checkpointer.wait()
            find_checkpoint(tmp_path, "best")
        save(checkpointer, 10, 0.8)
        save(checkpointer, 300, 0.6)
    found = [find_checkpoint(tmp_path, which) for which in ("latest", "best", "2")]
    assert [checkpoint.position.step for checkpoint in found] == [300, 10, 2]
    with pytest.raises(InputError, match="must be latest, best or one of 2, 10, 300, got 7"):
        find_checkpoint(tmp_path, "7")


class Killed(BaseException):
    """What the process does not survive."""


@pytest.mark.parametrize("moment", ["complete_checkpoint", "remove_old"])
def test_what_a_killed_save_left_is_removed_by_the_next_run(moment, worker, tmp_path, monkeypatch):
    def dies(*args):
        raise Killed

    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpointer_module, moment, dies)
        with Checkpointer(tmp_path) as checkpointer:
            save(checkpointer, 2)
    assert len(list(tmp_path.iterdir())) == 2
    whole = steps(tmp_path)
    assert whole == ([1] if moment == "complete_checkpoint" else [1, 2])
    (tmp_path / ".old-step-00000000").mkdir()  # killed while removing
    with Checkpointer(tmp_path):
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {f"step-{step:08d}" for step in whole}


def test_the_exception_that_ends_training_is_the_one_that_is_seen(worker, tmp_path):
    with pytest.raises(Killed), Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1)
        raise Killed
    assert steps(tmp_path) == [1]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 1 MiB; one that only says it is full where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        yield folder
        subprocess.run(["umount", str(folder)], check=True)
    else:
        yield folder


def test_a_full_disk_is_named_and_leaves_the_checkpoint_before(worker, small_disk, monkeypatch):
    folder = small_disk / "run" / "checkpoints"
    with pytest.raises(InputError) as error, Checkpointer(folder) as checkpointer:
        save(checkpointer, 1)
        checkpointer.wait()
        if not os.path.ismount(small_disk):
            monkeypatch.setattr("os.fsync", no_space)
        checkpointer.save({"model.b": TensorShards.of(torch.ones(1 << 20))}, Position(step=2))
        checkpointer.wait()
    folder = small_disk / "run" / "checkpoints"
    assert str(error.value) == (
        f"{folder} must have room for the checkpoint of step 2, got on rank 0: No space left on "
        "device; those before it are whole"
    )
    assert steps(folder) == [1]
    assert [path.name for path in folder.iterdir()] == ["step-00000001"]
    assert value_in(find_checkpoint(folder).folder) == 1


def test_a_full_disk_is_found_when_the_last_files_are_written(worker, tmp_path, monkeypatch):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1)
    monkeypatch.setattr(checkpoint_folders, "flush", no_space)
    with pytest.raises(InputError, match="got on rank 0: No space left on device"):
        with Checkpointer(tmp_path) as checkpointer:
            save(checkpointer, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def no_space(*args) -> None:
    raise OSError(28, "No space left on device")
