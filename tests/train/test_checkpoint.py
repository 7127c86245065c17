"""Checkpoints: whole or not at all, every misfit named, nothing lost to a kill."""

from pathlib import Path

import pytest
import torch

from torchrec_mm.errors import InputError
from torchrec_mm.train.checkpoint import (
    checkpoint_shapes,
    load_checkpoint,
    read_checkpoint,
    restore,
    save_checkpoint,
)


class Killed(BaseException):
    """What the process does not survive."""


def saved(folder: Path, value: float = 1.0) -> Path:
    save_checkpoint(folder, {"model.a": torch.full((2, 3), value), "epochs": torch.tensor(4)})
    return folder


def value_in(folder: Path) -> float:
    return read_checkpoint(folder, "model.")["a"][0, 0].item()


def killed_at_rename(monkeypatch, number: int) -> None:
    """The process dies just before its ``number``-th rename of a folder, counted from 0."""
    rename, folders = Path.rename, []

    def dying(self, target):
        if self.is_dir():
            folders.append(self)
        if len(folders) > number:
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dying)


class NothingToFill:
    """Stands where restore wants a model: its checkpoint holds a count of epochs alone."""

    class _Empty:
        def state_dict(self) -> dict:
            return {"state": {}}

    optimizer = _Empty()

    class model:  # noqa: N801
        @staticmethod
        def state_dict() -> dict:
            return {}

    def create_optimizer_state(self) -> None:
        pass


def test_tensors_come_back_as_they_were(worker, tmp_path):
    saved(tmp_path / "checkpoint", 2.5)
    tensors = {"model.a": torch.zeros(2, 3), "epochs": torch.tensor(0)}
    load_checkpoint(tmp_path / "checkpoint", tensors)
    assert tensors["model.a"].tolist() == [[2.5] * 3] * 2
    assert tensors["epochs"].item() == 4
    assert checkpoint_shapes(tmp_path / "checkpoint") == {"model.a": (2, 3), "epochs": ()}


def test_a_new_checkpoint_takes_the_place_of_the_old_one_and_leaves_nothing_else(worker, tmp_path):
    saved(tmp_path / "checkpoint", 1)
    saved(tmp_path / "checkpoint", 2)
    assert value_in(tmp_path / "checkpoint") == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_keys_are_read_by_prefix_and_lose_it(worker, tmp_path):
    tensors = read_checkpoint(saved(tmp_path / "checkpoint"), "model.")
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [[1.0] * 3] * 2}


def test_every_key_and_shape_that_does_not_fit_is_named(worker, tmp_path):
    tensors = {"model.a": torch.zeros(5, 3), "model.b": torch.zeros(1), "model.c": torch.zeros(1)}
    with pytest.raises(InputError) as error:
        load_checkpoint(saved(tmp_path / "checkpoint"), tensors)
    words = str(error.value)
    assert words.startswith(f"{tmp_path / 'checkpoint'} must fit the model: ")
    for part in (
        "model.b is missing",
        "model.c is missing",
        "model.a is (2, 3), not (5, 3)",
        "epochs is unknown",
    ):
        assert part in words
    assert not tensors["model.a"].any()


def test_keys_may_be_ignored_in_the_checkpoint_but_not_in_the_model(worker, tmp_path):
    folder = saved(tmp_path / "checkpoint")
    load_checkpoint(folder, {"model.a": torch.zeros(2, 3)}, ignore=("epochs",))
    with pytest.raises(InputError, match="epochs_left is missing"):
        load_checkpoint(
            folder,
            {"model.a": torch.zeros(2, 3), "epochs_left": torch.tensor(0)},
            ignore=("epochs",),
        )


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_a_folder_that_is_no_checkpoint_is_named(make, worker, tmp_path):
    make(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="checkpoint must be a checkpoint: no .metadata in it"):
        load_checkpoint(tmp_path / "checkpoint", {})


def test_a_kill_before_the_renames_leaves_the_old_checkpoint(worker, tmp_path, monkeypatch):
    saved(tmp_path / "checkpoint", 1)
    killed_at_rename(monkeypatch, 0)
    with pytest.raises(Killed):
        saved(tmp_path / "checkpoint", 2)
    assert value_in(tmp_path / "checkpoint") == 1


def test_a_kill_in_mid_write_leaves_the_old_checkpoint(worker, tmp_path, monkeypatch):
    saved(tmp_path / "checkpoint", 1)

    def dying(tensors, checkpoint_id):
        Path(checkpoint_id).mkdir()
        (Path(checkpoint_id) / "__0_0.distcp").write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(torch.distributed.checkpoint, "save", dying)
    with pytest.raises(Killed):
        saved(tmp_path / "checkpoint", 2)
    assert value_in(tmp_path / "checkpoint") == 1


def test_a_kill_between_the_renames_is_undone_when_the_run_is_resumed(
    worker, tmp_path, monkeypatch
):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, {"epochs": torch.tensor(3)})
    with monkeypatch.context() as patch:
        killed_at_rename(patch, 1)
        with pytest.raises(Killed):
            save_checkpoint(folder, {"epochs": torch.tensor(4)})
    assert not folder.exists()
    assert restore(folder, NothingToFill()) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_a_kill_while_the_old_one_is_removed_does_not_stop_the_next_save(
    worker, tmp_path, monkeypatch
):
    saved(tmp_path / "checkpoint", 1)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *args, **flags: None)
        saved(tmp_path / "checkpoint", 2)
    assert len(list(tmp_path.iterdir())) == 2
    saved(tmp_path / "checkpoint", 3)
    assert value_in(tmp_path / "checkpoint") == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]


def test_a_run_without_a_checkpoint_has_finished_no_epoch(worker, tmp_path):
    assert restore(tmp_path / "checkpoint", NothingToFill()) == 0
