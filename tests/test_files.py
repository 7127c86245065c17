"""Outputs appear whole or not at all."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file, new_folder, refuse_existing, remove_unfinished, write_json


def everything_in(folder: Path) -> list[str]:
    """Names of all entries, hidden ones too."""
    return sorted(os.listdir(folder))


def test_a_file_appears_under_its_name_when_the_block_is_done(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with new_file(path) as aside:
        aside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert everything_in(path.parent) == ["a.txt"]


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with new_file(path) as aside:
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), new_file(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert everything_in(tmp_path) == ["a.txt"]


def test_a_folder_appears_with_all_it_holds(tmp_path):
    path = tmp_path / "deep" / "run"
    with new_folder(path) as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "a.txt").write_text("a")
        assert not path.exists()
    assert (path / "sub" / "a.txt").read_text() == "a"
    assert everything_in(path.parent) == ["run"]


def test_a_failure_leaves_no_folder(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "run") as aside:
        (aside / "a.txt").write_text("half")
        raise RuntimeError
    assert everything_in(tmp_path) == []


def test_an_interruption_leaves_nothing_either(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "run"):
        raise KeyboardInterrupt
    assert everything_in(tmp_path) == []


def flushes(monkeypatch, path: Path) -> list[tuple[int, bool]]:
    """Grows with each flush to disk: which inode, and whether ``path`` had its name by then."""
    seen = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append((os.fstat(fd).st_ino, path.exists())))
    return seen


def test_a_file_is_on_disk_before_it_has_its_name_and_its_name_is_afterwards(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    flushed = flushes(monkeypatch, path)
    with new_file(path) as aside:
        aside.write_text("whole")
    assert flushed == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_folder_and_all_it_holds_are_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "run"
    flushed = flushes(monkeypatch, path)
    with new_folder(path) as aside:
        (aside / "sub").mkdir()
        (aside / "sub" / "a.txt").write_text("a")
        (aside / "b.txt").write_text("b")
    *before, name = flushed
    assert name == (tmp_path.stat().st_ino, True)
    entries = (path, path / "sub", path / "sub" / "a.txt", path / "b.txt")
    assert sorted(before) == sorted((entry.stat().st_ino, False) for entry in entries)


def test_others_may_read_what_was_written(tmp_path):
    with new_file(tmp_path / "a.txt"), new_folder(tmp_path / "run"):
        pass
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: fill(path)])
def test_what_exists_is_refused_before_any_work_and_stays(tmp_path, make):
    path = tmp_path / "run"
    make(path)
    began = False
    with pytest.raises(InputError, match="run exists already: name a new folder or remove it"):
        with new_folder(path):
            began = True
    assert not began
    assert everything_in(tmp_path) == ["run"]


def fill(path: Path) -> None:
    path.mkdir()
    (path / "kept.txt").write_text("kept")


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    (tmp_path / "run").mkdir()
    refuse_existing(tmp_path / "run")
    with new_folder(tmp_path / "run") as aside:
        (aside / "a.txt").write_text("a")
    assert everything_in(tmp_path / "run") == ["a.txt"]


def test_a_link_stays_and_what_it_names_is_made_or_replaced(tmp_path):
    (tmp_path / "disk" / "empty").mkdir(parents=True)
    (tmp_path / "disk" / "old").write_text("old")
    for name in ("empty", "old"):
        (tmp_path / name).symlink_to(Path("disk", name))
    with new_folder(tmp_path / "empty") as aside:
        assert aside.parent == (tmp_path / "disk").resolve()  # else it could not be renamed
        (aside / "a.txt").write_text("a")
    with new_file(tmp_path / "old") as aside:
        aside.write_text("new")
    assert (tmp_path / "disk" / "empty" / "a.txt").read_text() == "a"
    assert (tmp_path / "disk" / "old").read_text() == "new"
    assert (tmp_path / "empty").is_symlink() and (tmp_path / "old").is_symlink()


@pytest.mark.parametrize("new", [new_file, new_folder])
def test_what_was_made_is_kept_where_its_place_was_taken_meanwhile(tmp_path, new):
    path = tmp_path / "run"
    with pytest.raises(InputError) as refused, new(path) as aside:
        (aside / "a.txt" if new is new_folder else aside).write_text("made")
        path.mkdir()
        (path / "theirs").touch()
    message, kept = str(refused.value).split("; what was made is in ")
    assert message.startswith(f"{path} could not be replaced: ")
    made = Path(kept, "a.txt") if new is new_folder else Path(kept)
    assert made.read_text() == "made"
    assert everything_in(tmp_path) == sorted(["run", Path(kept).parent.name])
    assert everything_in(path) == ["theirs"]


def test_json_is_written_as_given(tmp_path):
    write_json(tmp_path / "m.json", {"auc": 0.5, "vectors": None})
    text = (tmp_path / "m.json").read_text()
    assert json.loads(text) == {"auc": 0.5, "vectors": None}
    assert text.endswith("}\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_that_others_could_not_read_is_not_written(tmp_path, number):
    with pytest.raises(ValueError):
        write_json(tmp_path / "m.json", {"auc": number})
    assert everything_in(tmp_path) == []


@pytest.mark.kill
def test_a_kill_in_mid_writing_leaves_no_folder_under_the_promised_name(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from torchrec_mm.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as aside:\n"
        "    (aside / 'half').write_text('half'); print(flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.kill()
    assert not (tmp_path / "run").exists()
    with new_folder(tmp_path / "run") as aside:  # and the name is free for the next try
        (aside / "a.txt").write_text("a")
    assert everything_in(tmp_path / "run") == ["a.txt"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    code = """
import os, sys
from pathlib import Path
from torchrec_mm.files import new_file, new_folder
folder = Path(sys.argv[1])
with new_file(folder / "[a].txt"), new_file(folder / "b.txt"), new_folder(folder / "c") as aside:
    (aside / "d").touch()
    os._exit(0)
"""
    (tmp_path / ".hidden").touch()
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert len(everything_in(tmp_path)) == 4
    remove_unfinished(tmp_path, "[a].txt")
    assert len(everything_in(tmp_path)) == 3
    remove_unfinished(tmp_path)
    assert everything_in(tmp_path) == [".hidden"]
