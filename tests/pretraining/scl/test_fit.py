"""Training that stops anywhere goes on to the same bits; what ends it says why."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.runs import lines_of
from tests.pretraining.packed_room import SmallRun, config_of, state_of, stopped_before
from torchrec_mm.errors import InputError, TrainingDiverged
from torchrec_mm.pretraining.scl.fit import fit, restore
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import RunFolder
from torchrec_mm.runs.stop import Stopped as StoppedBySigterm

STEPS = 6  # of an epoch: 108 pairs, 16 a batch


@pytest.fixture
def train(worker, packed, encoders):
    """Start a run, or go on with it; returns its last state."""

    def call(folder: Path, change=None, **flags) -> dict:
        config = config_of(folder, packed.folder, encoders, **flags)
        run = SmallRun(config, worker)
        if change:
            change(run)
        run_folder = RunFolder.create(folder, config, worker, resume=True)
        start = restore(run_folder, run.trainer)
        run_folder.drop_records_after(start)
        call.started = start
        fit(run.trainer, run.loader, run_folder, config, start, lambda _: None)
        return state_of(run.trainer)

    return call


def steps_of(folder: Path) -> list[dict]:
    """Step lines but for their speed."""
    lines = lines_of(folder, "step")
    return [{k: v for k, v in line.items() if k != "pairs_per_s"} for line in lines]


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


LAYERS = {"trainable_layers": -1, "batch_norm": "synchronised", "augment": True}
LAYERS |= {"modality": "image", "precision": "bf16"}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 5, STEPS, 2 * STEPS - 1])
def test_a_run_that_stopped_anywhere_goes_on_to_the_same_bits(train, tmp_path, stop):
    whole = train(tmp_path / "whole", checkpoint_steps=3)
    with stopped_before(stop):
        train(tmp_path / "half", checkpoint_steps=3)
    assert_same(train(tmp_path / "half", checkpoint_steps=3), whole)
    assert train.started.step == {1: 0, 5: 3, 6: 6, 11: 9}[stop]
    assert steps_of(tmp_path / "half") == steps_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, STEPS - 1])
def test_a_run_that_got_sigterm_saves_and_goes_on_to_the_same_bits(train, tmp_path, stop):
    whole = train(tmp_path / "whole", log_every_steps=1)

    def get_signal(run: SmallRun) -> None:
        make = run.trainer.step

        def step(batch, number, total_steps):
            if number == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            return make(batch, number, total_steps)

        run.trainer.step = step

    try:
        with pytest.raises(StoppedBySigterm):
            train(tmp_path / "half", log_every_steps=1, change=get_signal, stop_timeout_s=1e6)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
    (saved,) = list_checkpoints(tmp_path / "half" / "checkpoints")
    assert saved.position.step == stop + 1
    assert_same(train(tmp_path / "half", log_every_steps=1), whole)
    assert steps_of(tmp_path / "half") == steps_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [LAYERS, LAYERS | {"precision": "fp16"}, {"bank_slots": 0}])
def test_trained_layers_norms_and_loss_scale_go_on_as_well(train, tmp_path, flags):
    flags = {"epochs": 1, "checkpoint_steps": 2} | flags
    whole = train(tmp_path / "whole", **flags)
    with stopped_before(3):
        train(tmp_path / "half", **flags)
    assert_same(train(tmp_path / "half", **flags), whole)
    assert train.started == Position(step=2, epoch=0, requests_done=32)
    assert steps_of(tmp_path / "half") == steps_of(tmp_path / "whole")


@pytest.mark.slow
def test_how_often_a_run_is_saved_changes_nothing_but_its_lines(train, tmp_path):
    often = train(tmp_path / "often", checkpoint_steps=1, keep_checkpoints=2)
    assert_same(often, train(tmp_path / "once"))
    kept = list_checkpoints(tmp_path / "often" / "checkpoints")
    assert [each.position for each in kept] == [
        Position(step=11, epoch=1, requests_done=80),
        Position(step=12, epoch=2),
    ]
    (last,) = list_checkpoints(tmp_path / "once" / "checkpoints")
    assert last.position == Position(step=12, epoch=2)


def test_a_finished_run_stays_as_it_is(train, tmp_path):
    whole = train(tmp_path, epochs=1)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert_same(train(tmp_path, epochs=1), whole)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_lines_hold_means_over_the_pairs_of_their_steps(train, tmp_path):
    train(tmp_path / "two", epochs=1)
    train(tmp_path / "one", epochs=1, log_every_steps=1)
    twos, ones = steps_of(tmp_path / "two"), steps_of(tmp_path / "one")
    assert [line["step"] for line in twos] == [2, 4, 6]
    assert [line["step"] for line in ones] == [1, 2, 3, 4, 5, 6]
    for line, pair in zip(twos, zip(ones[::2], ones[1::2], strict=True), strict=True):
        pairs = [each["text/pairs"] for each in pair]
        assert line["text/pairs"] == sum(pairs)
        means = [each["text/info_nce"] for each in pair]
        assert line["text/info_nce"] == pytest.approx(np.average(means, weights=pairs))
        parts = ((f"{space}/info_nce", f"{space}/triplet") for space in ("image", "text", "fused"))
        assert line["loss"] == pytest.approx(sum(line[a] + line[b] for a, b in parts))
        assert line["gradient_norm"] == pytest.approx(np.mean([e["gradient_norm"] for e in pair]))
        assert line["learning_rate"] == pair[1]["learning_rate"]


def spoil_weights(run: SmallRun) -> None:
    with torch.no_grad():
        next(p for p in run.trainer.parameters if p.ndim == 2).fill_(torch.nan)


def spoil_gradients(run: SmallRun) -> None:
    parameter = next(p for p in run.trainer.parameters if p.ndim == 2)
    parameter.register_hook(lambda gradient: gradient * torch.inf)


@pytest.mark.parametrize("spoil", [spoil_weights, spoil_gradients])
def test_a_loss_or_gradient_that_is_no_number_ends_training_unsaved(train, tmp_path, spoil):
    with pytest.raises(TrainingDiverged, match=r"(nan|inf) in the steps up to 1 \(epoch 1\)"):
        train(tmp_path, change=spoil, log_every_steps=1, checkpoint_steps=1)
    assert not list_checkpoints(tmp_path / "checkpoints")


def test_steps_that_half_precision_leaves_out_are_counted(train, tmp_path):
    train(tmp_path, change=spoil_gradients, precision="fp16", epochs=1)
    assert [line["steps_left_out"] for line in lines_of(tmp_path, "step")] == [2, 2, 2]


def test_too_many_pictures_that_cannot_be_decoded_end_training(train, tmp_path):
    flags = {"trainable_layers": 1, "modality": "image"}
    words = "corrupt_share must be at least 1.0000 for these pictures, .* got 0.01"

    def spoil(run: SmallRun) -> None:
        object.__setattr__(run.reader.sources["image"], "max_pixels", 1)

    with pytest.raises(InputError, match=words):
        train(tmp_path / "run", change=spoil, **flags)
    train(tmp_path / "other", change=spoil, corrupt_share=1.0, epochs=1, **flags)
    assert steps_of(tmp_path / "other")[0]["image/pairs"] == 0


def test_figures_are_in_tensorboard_too(train, tmp_path):
    train(tmp_path, epochs=1)
    assert list((tmp_path / "tensorboard").glob("events*"))
