"""apps.pretrain from flags to files, on tiny encoders."""

import json

import pytest
import torch
from torchrec_mm.pretraining.run import PretrainingRun

from apps.pretrain import main
from tests.pretraining.tiny import save_image_encoder, save_text_encoder, write_search_data
from torchrec_mm.errors import InputError


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrain")
    write_search_data(folder / "data", searches=300)
    save_image_encoder(folder / "image")
    save_text_encoder(folder / "text")
    return folder


@pytest.fixture
def pretrain(room):
    def call(run_dir, *flags: str) -> None:
        main(
            f"--data {room / 'data'} --run_dir {run_dir} --image_encoder {room / 'image'} "
            f"--text_encoder {room / 'text'} --image_size 32 --batch_size 16 --bank_slots 64 "
            "--learning_rate 0.003".split()
            + list(flags)
        )

    return call


def lines(run_dir) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def figures(run_dir) -> dict:
    return json.loads((run_dir / "retrieval.json").read_text())


def test_training_improves_what_it_is_judged_on_and_leaves_a_whole_run(pretrain, tmp_path, capsys):
    pretrain(tmp_path / "run", "--epochs", "8", "--holdout", "0.3")
    report = figures(tmp_path / "run")
    assert report["encoder"] == "scl"
    assert report["mrr"] > 1.5 * report["off-the-shelf"]["mrr"]
    assert report["searches"] == 90 and report["items"] == 40
    assert set(report["spaces"]) == {"image", "text", "fused"}
    epochs = [line for line in lines(tmp_path / "run") if "mrr" in line]
    assert [line["epoch"] for line in epochs] == list(range(9))
    assert epochs[0]["mrr"] == report["off-the-shelf"]["mrr"] and epochs[8]["mrr"] == report["mrr"]
    assert "scl: recall@10" in capsys.readouterr().out


def test_no_epochs_write_the_off_the_shelf_encoder_and_one_modality_is_enough(pretrain, tmp_path):
    pretrain(tmp_path / "run", "--epochs", "0", "--modality", "text")
    report = figures(tmp_path / "run")
    assert report["encoder"] == "off-the-shelf"
    assert report["mrr"] == report["off-the-shelf"]["mrr"] == report["spaces"]["text"]["mrr"]


@pytest.mark.parametrize("flags", ["--modality both", "--modality text --trainable_layers -1"])
def test_a_run_that_was_cut_off_continues_to_the_same_end(pretrain, tmp_path, monkeypatch, flags):
    flags = ["--epochs", "3", *flags.split()]
    pretrain(tmp_path / "whole", *flags)
    finish = PretrainingRun._finish_epoch

    def die_in_the_second_epoch(self, epoch, *args):
        if epoch == 2:
            raise RuntimeError("cut off")
        finish(self, epoch, *args)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="cut off"):
        patched.setattr(PretrainingRun, "_finish_epoch", die_in_the_second_epoch)
        pretrain(tmp_path / "cut", *flags)
    assert not (tmp_path / "cut" / "retrieval.json").exists()
    pretrain(tmp_path / "cut", *flags, "--resume", "true")
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert figures(tmp_path / "cut") == figures(tmp_path / "whole")
    whole, cut = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["towers"]["text"]["tower"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_an_existing_run_is_neither_overwritten_nor_resumed_with_other_flags(pretrain, tmp_path):
    pretrain(tmp_path / "run", "--epochs", "0", "--modality", "text")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with pytest.raises(InputError, match="run exists already"):
        pretrain(tmp_path / "run", "--epochs", "0", "--modality", "text")
    with pytest.raises(InputError, match="epochs must stay as the run began, 0, .* got 1"):
        pretrain(tmp_path / "run", "--epochs", "1", "--modality", "text", "--resume", "true")
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--batch_size", "1000"], "batch_size must be at most the .* got 1000"),
        (["--momentum", "1"], r"momentum must be in \[0, 1\), got 1"),
        (["--holdout", "0"], r"holdout must be in \(0, 1\), got 0"),
        (["--learning_rate", "-1"], "learning_rate must be finite and at least 0, got -1"),
        (["--max_image_pixels", "100"], r"image of -?\d+ must have at most 100 pixels"),
        (["--trainable_layers", "99"], "trainable_layers must be in"),
        (["--text_encoder", "nowhere"], "text_encoder must be .*, got nowhere"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(pretrain, tmp_path, flags, complaint):
    with pytest.raises(InputError, match=complaint):
        pretrain(tmp_path / "run", *flags)
    assert list(tmp_path.iterdir()) == []


def test_the_torchx_component_names_this_app_and_passes_its_flags():
    from torchx_components.pretraining import pretrain as component

    (role,) = component("--data", "d", "--epochs", "3", j="1x2").roles
    command = " ".join(role.args)
    assert "-m apps.pretrain --data d --epochs 3" in command
    assert "--nproc_per_node 2" in command
