"""apps.compare_encoders: which runs the table is made of, what is not done twice, and the table."""

import json

import pytest

from apps import compare_encoders
from tests.helpers.runs import last_step
from tests.pretraining.tiny import save_image_encoder, save_text_encoder, write_search_data
from torchrec_mm.errors import InputError

FLAGS = "{epochs: 3, batch_size: 8, holdout: 0.2}"


@pytest.fixture
def data(tmp_path):
    return write_search_data(tmp_path / "data")


@pytest.fixture
def commands(monkeypatch):
    """The flags of each run of apps.pretrain, which only writes a made-up report."""
    commands = []

    def run_side_by_side(jobs, processes, threads):
        for job in jobs:
            ((app, words),) = job.commands
            if not job.result.exists():
                flags = dict(zip(words[::2], words[1::2], strict=True))
                commands.append(flags)
                assert app == "pretrain"
                job.result.parent.mkdir()
                recall = 0.5 + int(flags["--seed"]) / 10
                figures = {"fused": {"recall@10": recall, "searches": 20}}
                job.result.write_text(
                    json.dumps({"spaces": figures, "off-the-shelf": {"spaces": figures}})
                )

    monkeypatch.setattr(compare_encoders, "run_side_by_side", run_side_by_side)
    return commands


def compare(data, run_dir, *more, flags=FLAGS):
    words = ["--data", str(data), "--run_dir", str(run_dir), "--flags", flags, *more]
    compare_encoders.main(words)
    return json.loads((run_dir / "encoders.json").read_text())


def test_every_encoder_is_trained_with_every_seed_and_the_off_the_shelf_one_is_judged_once(
    data, commands, tmp_path, capsys
):
    table = compare(data, tmp_path / "run", "--seeds", "2", "--seed", "5")
    runs = [command["--run_dir"].rpartition("/")[2] for command in commands]
    encoders = ["clip-e", "scl", "scl-no-bank", "scl-no-triplet", "co-click"]
    assert runs == ["off-the-shelf-5", *(f"{name}-{seed}" for name in encoders for seed in (5, 6))]
    assert {command["--packed"] for command in commands} == {str(tmp_path / "run" / "packed")}
    assert {command["--resume"] for command in commands} == {"true"}
    assert [row["runs"] for row in table["encoders"]] == [1, 2, 2, 2, 2, 2]
    before = table["encoders"][0]["minus_scl"]["fused"]["recall@10"]
    assert len(before["values"]) == 2  # of the one run, from each of SCL's
    printed = capsys.readouterr().out
    assert printed.strip().endswith((tmp_path / "run" / "encoders.md").read_text().strip())
    assert "held-out searches are the same in every run" in printed


def test_runs_differ_in_what_the_encoder_is_about_and_share_other_flags(data, commands, tmp_path):
    compare(data, tmp_path / "run", "--seeds", "1")
    by_encoder = {command.pop("--run_dir").rpartition("/")[2][:-2]: command for command in commands}
    scl = by_encoder.pop("scl")
    assert scl["--holdout_by"] == "item" and scl["--batch_size"] == "8" and scl["--epochs"] == "3"
    changed = {
        name: {flag: value for flag, value in flags.items() if scl.get(flag) != value}
        for name, flags in by_encoder.items()
    }
    for name in ("clip-e", "co-click"):
        assert changed[name].pop("--method") == name
        assert int(changed[name].pop("--epochs")) > 3  # fewer pairs than searches
    assert changed == {
        "off-the-shelf": {"--epochs": "0"},
        "clip-e": {"--bank_slots": "0", "--momentum": "0.0"},
        "scl-no-bank": {"--bank_slots": "0"},
        "scl-no-triplet": {"--triplet_weight": "0.0"},
        "co-click": {},
    }


def test_what_is_finished_is_not_done_again(data, commands, tmp_path):
    run_dir = tmp_path / "run"
    compare(data, run_dir, "--seeds", "1")
    commands.clear()
    (run_dir / "scl-no-bank-0" / "retrieval.json").unlink()
    (run_dir / "scl-no-bank-0").rmdir()
    packed = (run_dir / "packed" / "meta.json").stat().st_mtime_ns
    compare(data, run_dir, "--seeds", "2", "--encoders", "[scl, scl-no-bank]")
    runs = [command["--run_dir"].rpartition("/")[2] for command in commands]
    assert runs == ["scl-1", "scl-no-bank-0", "scl-no-bank-1"]
    assert (run_dir / "packed" / "meta.json").stat().st_mtime_ns == packed


def test_runs_of_other_flags_are_never_put_into_one_table(data, commands, tmp_path):
    compare(data, tmp_path / "run", "--seeds", "1", "--encoders", "[scl]")
    with pytest.raises(InputError, match="flags must stay as the comparison in .* began"):
        compare(data, tmp_path / "run", flags="{epochs: 4, batch_size: 8}")
    other = write_search_data(tmp_path / "other")
    with pytest.raises(InputError, match="data must stay as the comparison in .* began"):
        compare(other, tmp_path / "run")


def test_a_folder_that_holds_something_else_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="holds something else"):
        compare(data, data)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoders", "[scl, best]"], "encoders must be some of .*, got best"),
        (["--flags", "{seed: 3}"], "flags must not hold seed"),
        (["--flags", "{banks: 3}"], "unknown flag: --banks"),
        (["--flags", "{epochs: 0}"], "epochs must be at least 1, got 0"),
        (["--flags", "{epochs: many}"], "epochs must be a whole number, got many"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(data, tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        compare_encoders.main(["--data", str(data), "--run_dir", str(tmp_path / "run"), *words])
    assert not (tmp_path / "run").exists()


def test_the_table_holds_what_the_real_runs_measured(data, tmp_path, monkeypatch):
    def run_side_by_side(jobs, processes, threads):
        for job in jobs:
            job.run()

    monkeypatch.setattr(compare_encoders, "run_side_by_side", run_side_by_side)
    encoders = save_image_encoder(tmp_path / "image"), save_text_encoder(tmp_path / "text")
    flags = "{{epochs: 2, batch_size: 8, holdout: 0.2, image_size: 32, image_encoder: {}, "
    flags = (flags + "text_encoder: {}, bank_slots: 32}}").format(*encoders)
    more = ("--seeds", "1", "--encoders", "[off-the-shelf, clip-e, scl, co-click]")
    table = compare(data, tmp_path / "run", *more, flags=flags)
    rows = {row["encoder"]: row for row in table["encoders"]}
    for encoder in ("off-the-shelf", "clip-e", "scl", "co-click"):
        report = json.loads((tmp_path / "run" / f"{encoder}-0" / "retrieval.json").read_text())
        assert report["encoder"] == encoder
        spaces = rows[encoder]["spaces"]
        assert set(spaces) == {"fused", "image", "text", "title_to_picture"}
        assert spaces["fused"]["mrr"]["values"] == [report["mrr"]]
        found = report["title_to_picture"]["recall@10"]
        assert spaces["title_to_picture"]["recall@10"]["mean"] == found
    steps = last_step(tmp_path / "run" / "scl-0")
    assert steps > 10
    for encoder in ("clip-e", "co-click"):
        assert abs(last_step(tmp_path / "run" / f"{encoder}-0") / steps - 1) < 0.2
