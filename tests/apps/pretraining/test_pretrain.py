"""apps.pretrain from flags to files, on tiny encoders, in this process."""

import json
import os
import random
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from apps.pack import main as pack
from apps.pretrain import PretrainConfig, main
from tests.helpers.forks import DEVNULL, PATIENCE_S, Fork, wait_until
from tests.helpers.request_folders import contents
from tests.helpers.runs import Stopped, last_step, lines_of
from tests.pretraining.embed.embedded import read_items, spoil, write_items
from tests.pretraining.judge.test_evaluation import FIGURES
from tests.pretraining.packed_room import stopped_before
from tests.pretraining.tiny import save_image_encoder, save_text_encoder, write_search_data
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.encoder_files import load_encoder
from torchrec_mm.pretraining.judge.judge import Results
from torchrec_mm.pretraining.pairs.pair_loader import PairLoader
from torchrec_mm.pretraining.scl import fit_heads

KILLS = int(os.environ.get("TORCHREC_MM_KILLS", "2"))


class Room:
    """A folder with data/, packed/, and encoders/image and /text."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.packed = folder, folder / "packed"
        self.data = write_search_data(folder / "data", searches=300)
        save_image_encoder(folder / "image")
        save_text_encoder(folder / "text")
        pack(["--data", str(self.data), "--run_dir", str(self.packed)])

    def flags(self, run_dir: Path, *more: str) -> list[str]:
        """Of a run; ``more`` win."""
        content = [] if "--data" in more else ["--packed", str(self.packed)]
        encoders = ["--image_encoder", str(self.folder / "image")]
        encoders += ["--text_encoder", str(self.folder / "text")]
        small = "--image_size 32 --batch_size 16 --bank_slots 64 --num_workers 0 --epochs 1"
        folders = [*content, "--run_dir", str(run_dir), *encoders]
        return [*folders, *small.split(), "--log_every_steps", "4", *more]


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Room:
    return Room(tmp_path_factory.mktemp("pretrain"))


@pytest.fixture
def pretrain(room):
    def call(run_dir: Path, *flags: str) -> dict:
        main(room.flags(run_dir, *flags))
        return report_of(run_dir)

    return call


@pytest.fixture(scope="module")
def learned(room, tmp_path_factory) -> Path:
    """A run that has had the time to learn."""
    run_dir = tmp_path_factory.mktemp("learned") / "run"
    main(room.flags(run_dir, "--epochs", "8", "--holdout", "0.3", "--learning_rate", "3e-3"))
    return run_dir


def report_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "retrieval.json").read_text())


def metrics_of(run_dir: Path) -> list[dict]:
    """Lines of metrics.jsonl but for their speed."""
    lines = lines_of(run_dir, "step") + lines_of(run_dir, "epoch")
    return [{k: v for k, v in line.items() if k != "pairs_per_s"} for line in lines]


def assert_same_end(one: Path, other: Path) -> None:
    """The same lines, figures and encoder files."""
    assert metrics_of(one) == metrics_of(other)
    for name in ("retrieval.json", "encoder.json", "encoder.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_training_improves_what_it_is_judged_on(learned):
    report = report_of(learned)
    assert report["encoder"] == "scl"
    assert report["mrr"] > 1.5 * report["off-the-shelf"]["mrr"]
    assert report["recall@10"] > 2 * report["off-the-shelf"]["recall@10"]


def test_retrieval_json_has_all_figures_of_each_space_before_and_after(learned):
    report = report_of(learned)
    before = report.pop("off-the-shelf")
    assert report.pop("encoder") == "scl" and 1 <= report.pop("epoch") <= 8
    for each in (report, before):
        assert each.keys() == FIGURES | {"spaces", "categories"}
        assert each["spaces"].keys() == {"image", "text", "fused"}
        for space, figures in each["spaces"].items():
            assert figures.keys() == FIGURES, space
            assert all(isinstance(value, int | float) for value in figures.values())
        assert {name: each[name] for name in FIGURES} == each["spaces"]["fused"]
        assert each["searches"] == 90 and each["items"] == 40


def test_metrics_jsonl_has_every_epoch_and_the_steps_between(learned):
    report = report_of(learned)
    epochs, steps = lines_of(learned, "epoch"), lines_of(learned, "step")
    assert [line["epoch"] for line in epochs] == list(range(9))
    assert epochs[0]["mrr"] == report["off-the-shelf"]["mrr"]
    assert all(line.keys() == {"epoch", "momentum_mrr", *FIGURES} for line in epochs[1:])
    found = {line["epoch"]: max(line["mrr"], line["momentum_mrr"]) for line in epochs[1:]}
    assert report["mrr"] == max(found.values()) == found[report["epoch"]]
    assert [line["step"] for line in steps[:5]] == [4, 8, 12, 13, 16]
    names = {"step", "loss", "gradient_norm", "steps_left_out", "learning_rate", "pairs_per_s"}
    for space in ("image", "text", "fused"):
        names |= {f"{space}/{name}" for name in ("info_nce", "triplet", "pairs", "temperature")}
    assert all(line.keys() == names for line in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_a_run_folder_is_whole_and_its_encoder_can_be_loaded(learned, room):
    assert {entry.name for entry in learned.iterdir()} == {
        *("config.yaml", "model.json", "metrics.jsonl", "retrieval.json", "checkpoints"),
        *("encoder.json", "encoder.safetensors", "tensorboard", "environment.json", "logs"),
    }
    assert [entry.name for entry in learned.parent.iterdir()] == ["run"]
    content = PackedContent.open(room.packed).fingerprint
    model = json.loads((learned / "model.json").read_text())
    assert model == {"kind": "encoder", "content": content}
    saved = load_encoder(learned)
    assert saved.name == "scl" and saved.encoder.spaces == ("image", "text", "fused")
    assert yaml.safe_load((learned / "config.yaml").read_text())["holdout"] == 0.3


def test_no_epochs_write_the_off_the_shelf_encoder_and_one_modality_is_enough(
    pretrain, tmp_path, capsys
):
    report = pretrain(tmp_path / "run", "--epochs", "0", "--modality", "text")
    assert report["encoder"] == load_encoder(tmp_path / "run").name == "off-the-shelf"
    assert report["mrr"] == report["off-the-shelf"]["mrr"] == report["spaces"]["text"]["mrr"]
    assert set(report["spaces"]) == {"text"}
    assert capsys.readouterr().out.startswith("off-the-shelf: recall@10 ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "stops", "flags"),
    [
        ("data", (3, 20, 45), ["--epochs", "3"]),
        ("packed", (9,), ["--epochs", "2", "--trainable_layers", "1", "--num_workers", "1"]),
    ],
)
def test_a_run_that_was_cut_off_continues_to_the_same_end(
    pretrain, room, tmp_path, source, stops, flags
):
    flags = [*flags, "--checkpoint_steps", "7"]
    flags += ["--data", str(room.data)] if source == "data" else []
    pretrain(tmp_path / "whole", *flags)
    for step in stops:
        with stopped_before(step):
            pretrain(tmp_path / "cut", *flags, "--resume")
    pretrain(tmp_path / "cut", *flags, "--resume")
    assert_same_end(tmp_path / "cut", tmp_path / "whole")
    assert {entry.name for entry in tmp_path.iterdir()} == {"cut", "whole"}


def test_a_run_cut_off_while_judged_continues_to_the_same_end(pretrain, tmp_path, monkeypatch):
    flags = ["--epochs", "2", "--modality", "text"]
    pretrain(tmp_path / "whole", *flags)
    write = Results._write

    def stop_after(self, name, *reports):
        write(self, name, *reports)
        if name != "off-the-shelf":
            raise Stopped

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Results, "_write", stop_after)
        pretrain(tmp_path / "cut", *flags)
    pretrain(tmp_path / "cut", *flags, "--resume")
    assert_same_end(tmp_path / "cut", tmp_path / "whole")


def test_an_existing_run_is_neither_overwritten_nor_resumed_with_other_flags(pretrain, tmp_path):
    flags = ("--epochs", "0", "--modality", "text")
    pretrain(tmp_path / "run", *flags)
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match="run exists already"):
        pretrain(tmp_path / "run", *flags)
    with pytest.raises(InputError, match="seed must stay 0 to resume .*, got 1"):
        pretrain(tmp_path / "run", *flags, "--seed", "1", "--resume")
    assert contents(tmp_path / "run") == before


def test_a_finished_run_that_is_resumed_stays_as_it_is(pretrain, room, tmp_path):
    flags = ("--modality", "text", "--data", str(room.data))
    pretrain(tmp_path / "run", *flags)
    before = contents(tmp_path / "run")
    pretrain(tmp_path / "run", *flags, "--resume")
    after = contents(tmp_path / "run")
    changed = {name for name in after if after[name] != before.get(name)}
    of_each_start = {"environment.json", "logs/rank-00000.log"}
    assert {name for name in changed if "tensorboard" not in name} == of_each_start
    assert before.keys() <= after.keys()


def test_modalities_and_the_size_of_the_bank_follow_from_the_data(room, tmp_path):
    items = read_items(room.data).drop_columns(["image"])
    data = write_items(tmp_path / "text", items)
    shutil.copytree(room.data / "searches", data / "searches")
    flags = room.flags(tmp_path / "run", "--data", str(data), "--epochs", "0")
    at = flags.index("--bank_slots")
    main(flags[:at] + flags[at + 2 :])
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["modality"], config["bank_slots"]) == ("text", 4)


def test_data_packed_on_the_way_gives_what_packed_before_does(pretrain, room, tmp_path):
    pretrain(tmp_path / "packed")
    pretrain(tmp_path / "data", "--data", str(room.data))
    assert_same_end(tmp_path / "data", tmp_path / "packed")
    assert {entry.name for entry in tmp_path.iterdir()} == {"data", "packed"}


def test_a_method_says_its_name_and_trains_its_contrasts(pretrain, tmp_path):
    of_clip, of_clicks = {"text_to_image", "image_to_text"}, {"image", "text", "fused"}
    for method, spaces in (("clip-e", of_clip), ("co-click", of_clicks)):
        report = pretrain(tmp_path / method, "--method", method, "--bank_slots", "16")
        assert report["encoder"] == method
        (line, *_) = lines_of(tmp_path / method, "step")
        assert {name.removesuffix("/pairs") for name in line if "/pairs" in name} == spaces


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({}, "scl"),
        ({"bank_slots": 0}, "scl-no-bank"),
        ({"triplet_weight": 0.0}, "scl-no-triplet"),
        ({"in_batch": False}, "scl-no-in-batch"),
        ({"method": "clip-e", "triplet_weight": 0.0}, "clip-e"),
        ({"method": "co-click"}, "co-click"),
        ({"epochs": 0, "bank_slots": 0}, "off-the-shelf"),
    ],
)
def test_encoders_are_named_by_how_they_are_trained(flags, name):
    assert PretrainConfig(run_dir=Path("run"), packed=Path("packed"), **flags).encoder_name == name


@pytest.mark.parametrize("method", ["scl", "clip-e", "co-click"])
def test_items_held_out_are_never_trained_on_and_judged_by_title_and_picture(
    pretrain, room, tmp_path, monkeypatch, method
):
    seen: set[int] = set()
    batches = PairLoader.batches

    def watched(self, *args):
        for batch in batches(self, *args):
            sides = [batch.key, batch.hard, *([batch.query] if method != "scl" else [])]
            seen.update(*(side.ids["fused"].tolist() for side in sides))
            yield batch

    monkeypatch.setattr(PairLoader, "batches", watched)
    flags = ["--method", method, "--holdout_by", "item", "--holdout", "0.3", "--batch_size", "8"]
    report = pretrain(tmp_path / "run", *flags)
    packed = PackedContent.open(room.packed)
    held_out = packed.held_out_items(0.3)
    fused = packed.fused_ids()[: packed.num_items]
    assert held_out.sum() > 5 and len(seen) > 10
    assert not seen & set(fused[held_out].tolist())
    assert report["searches"] == held_out[packed.purchased].sum()
    of_titles = {"recall@1", "recall@10", "mrr", "searches", "items"}
    assert report["title_to_picture"].keys() == of_titles
    assert 5 < report["title_to_picture"]["items"] <= held_out.sum()


def spoilt(room: Room, folder: Path, pictures: int) -> Path:
    """The same data; that many items have pictures that cannot be decoded."""
    data = write_items(folder / "spoilt", spoil(read_items(room.data), list(range(pictures))))
    shutil.copytree(room.data / "searches", data / "searches")
    return data


@pytest.mark.parametrize("layers", ["0", "1"])
def test_pictures_that_cannot_be_decoded_count_as_missing_up_to_a_share(
    pretrain, room, tmp_path, layers
):
    data = spoilt(room, tmp_path, 5)
    flags = ["--data", str(data), "--modality", "image", "--trainable_layers", layers]
    with pytest.raises(InputError, match=r"corrupt_share must be at least 0\.\d+ for .* got 0.01"):
        pretrain(tmp_path / "refused", *flags)
    report = pretrain(tmp_path / "run", *flags, "--corrupt_share", "0.2")
    assert report["items"] == 40 - 1 - 5


def test_one_spoilt_picture_ends_no_run_with_cached_features(pretrain, room, tmp_path):
    report = pretrain(tmp_path / "run", "--data", str(spoilt(room, tmp_path, 1)), "--epochs", "3")
    assert report["spaces"]["image"]["items"] == 38 and report["items"] == 40


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--batch_size 1000", "batch_size must be at most the 2.. pairs to train on, got 1000"),
        ("--batch_size 1", "batch_size must be at least 2, got 1"),
        ("--image_size 16", "image_size must be at least 32, got 16"),
        ("--max_image_pixels 0", "max_image_pixels must be at least 1, got 0"),
        ("--max_image_pixels 100", r"corrupt_share must be at least 1.0000 .* got 0.01"),
        (
            "--max_image_pixels 100 --corrupt_share 1 --width 4",
            "items must have pictures that can be",
        ),
        ("--judged_searches 0", "judged_searches must be at least 1, got 0"),
        ("--keep_checkpoints 0", "keep_checkpoints must be at least 1, got 0"),
        ("--log_every_steps 0", "log_every_steps must be at least 1, got 0"),
        ("--epochs -1", "epochs must be at least 0, got -1"),
        ("--bank_slots -1", "bank_slots must be at least 0, got -1"),
        ("--warmup_steps -1", "warmup_steps must be at least 0, got -1"),
        ("--num_workers -1", "num_workers must be at least 0, got -1"),
        ("--checkpoint_steps -1", "checkpoint_steps must be at least 0, got -1"),
        ("--seed -1", "seed must be at least 0, got -1"),
        ("--momentum 1", r"momentum must be in \[0, 1\), got 1"),
        ("--corrupt_share 1.5", r"corrupt_share must be in \[0, 1\], got 1.5"),
        ("--layer_decay 0", r"layer_decay must be in \(0, 1\], got 0"),
        ("--margin 3", r"margin must be in \[0, 2\], got 3"),
        ("--holdout 0", r"holdout must be in \(0, 1\), got 0"),
        ("--learning_rate -1", "learning_rate must be finite and at least 0, got -1"),
        ("--backbone_learning_rate -1", "backbone_learning_rate must be finite and at least 0"),
        ("--weight_decay .inf", "weight_decay must be finite and at least 0, got inf"),
        ("--triplet_weight -1", "triplet_weight must be finite and at least 0, got -1"),
        ("--clip_norm -1", "clip_norm must be finite and at least 0, got -1"),
        ("--hang_timeout_s -1", "hang_timeout_s must be finite and at least 0, got -1"),
        ("--method clip-e --modality text", "modality must be both for clip-e, got text"),
        ("--augment", "augment must be left out with trainable_layers 0, got True"),
        ("--gradient_checkpointing", "gradient_checkpointing must be left out with trainable"),
        ("--batch_norm synchronised", "batch_norm must be left out with trainable_layers 0, got"),
        ("--trainable_layers 99", "trainable_layers must be in"),
        ("--trainable_layers -2", "trainable_layers must be in"),
        ("--text_encoder nowhere", "text_encoder must be .*, got nowhere"),
        ("--method clip", "--method must be one of scl, clip-e, co-click, got clip"),
    ],
)
def test_a_mistake_is_named_and_leaves_nothing_behind(pretrain, room, tmp_path, flags, complaint):
    with pytest.raises(InputError, match=complaint):
        pretrain(tmp_path / "run", "--data", str(room.data), *flags.split())
    assert list(tmp_path.iterdir()) == []


def test_the_run_folder_is_there_while_features_are_computed_and_goes_on_with_them(
    pretrain, tmp_path, monkeypatch
):
    run_dir = tmp_path / "run"

    def computed(*_: object) -> None:
        assert (run_dir / "config.yaml").is_file() and (run_dir / "logs").is_dir()
        raise failure

    monkeypatch.setattr(fit_heads, "cache_features", computed)
    for failure in (KeyboardInterrupt(), InputError("bad input")):  # the second is no new run's
        with pytest.raises(type(failure)):
            pretrain(run_dir, "--resume", "true")
        assert (run_dir / "config.yaml").is_file()
    monkeypatch.undo()
    assert pretrain(run_dir, "--resume", "true")["epoch"] in (0, 1)


def test_content_must_be_given_once_and_hold_what_is_trained(room, tmp_path, refused):
    run_dir = tmp_path / "run"
    both = room.flags(run_dir, "--data", str(room.data)) + ["--packed", str(room.packed)]
    assert "either data or packed must be given" in refused(main, both)
    text = tmp_path / "text"
    pack(["--data", str(room.data), "--run_dir", str(text), "--modality", "text"])
    wanted = room.flags(run_dir, "--packed", str(text), "--modality", "both")
    assert "modality must be one that" in refused(main, wanted)
    refused(main, room.flags(run_dir, "--data", str(tmp_path / "none")))
    assert not run_dir.exists() and {entry.name for entry in tmp_path.iterdir()} == {"text"}


@pytest.mark.kill
def test_killed_at_random_moments_it_ends_with_the_same_bits(room, tmp_path):
    more = "--trainable_layers 1 --checkpoint_steps 2 --log_every_steps 1 --resume"
    flags = [*more.split(), "--epochs", "2" if KILLS < 10 else "4", "--data", str(room.data)]
    main(room.flags(tmp_path / "whole", *flags))
    steps = max(line["step"] for line in lines_of(tmp_path / "whole", "step"))
    chance, run_dir = random.Random(3), tmp_path / "killed"
    for target in sorted(chance.randrange(1, steps) for _ in range(KILLS)):
        process = start(room.flags(run_dir, *flags))
        wait_until(lambda target=target: last_step(run_dir) >= target, process)
        process.kill()
        process.wait(PATIENCE_S)
    main(room.flags(run_dir, *flags))
    assert_same_end(run_dir, tmp_path / "whole")
    assert {entry.name for entry in tmp_path.iterdir()} == {"killed", "whole"}


def start(flags: list[str]) -> Fork:
    return Fork([sys.executable, "-m", "apps.pretrain", *flags], stdout=DEVNULL, stderr=DEVNULL)
