"""What cannot be made is refused before the work, and what is not refused can be made."""

import errno
import functools
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchrec_mm.errors import InputError
from torchrec_mm.files import beside, new_file, new_folder
from torchrec_mm.targets import check_file, check_new_folder, check_working_folder


def everything_below(folder: Path) -> list[tuple[str, int]]:
    """Each entry's path, and its inode: whether it is still the same one."""
    return sorted((str(entry), entry.lstat().st_ino) for entry in folder.rglob("*"))


def furnish(folder: Path) -> None:
    """Every kind of entry that a path may meet."""
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "kept").write_text("kept")
    (folder / "file").write_text("kept")
    os.mkfifo(folder / "pipe")
    for name in ("empty", "full", "file", "pipe", "nothing", "link"):
        (folder / ("link" if name == "link" else f"to_{name}")).symlink_to(name)


def make_folder(path: Path) -> None:
    with new_folder(path) as aside:
        (aside / "made").write_text("made")
    assert [entry.name for entry in path.iterdir()] == ["made"]


def make_file(path: Path) -> None:
    with new_file(path) as aside:
        aside.write_text("made")
    assert path.read_text() == "made"


def work_in(path: Path) -> None:
    make_folder(beside(path, "encoded"))
    path.mkdir(parents=True, exist_ok=True)
    (path / "made").write_text("made")


check_work = functools.partial(check_working_folder, asides=True)
entries = ["empty", "full", "file", "pipe", "to_empty", "to_full", "to_file", "to_pipe"]
names = st.sampled_from(
    [*entries, "to_nothing", "link", "..", ".", "new", "größe", "n" * 236, "n" * 237, "n" * 256]
)


@pytest.mark.parametrize(
    ("check", "make"),
    [(check_new_folder, make_folder), (check_file, make_file), (check_work, work_in)],
)
@given(parts=st.lists(names, min_size=1, max_size=4))
@settings(deadline=None)
def test_what_passes_can_be_made_and_nothing_stays_of_the_trial(check, make, parts):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "so", "deep", "that", "none", "leaves").resolve()
        folder.mkdir(parents=True)
        furnish(folder)
        before = everything_below(Path(name))
        try:
            check(folder.joinpath(*parts), "flag")
        except InputError as error:
            assert "\n" not in str(error)
            return
        finally:
            assert everything_below(Path(name)) == before
        make(folder.joinpath(*parts))
        assert (folder / "full" / "kept").read_text() == "kept"


@pytest.mark.parametrize("check", [check_new_folder, check_file, check_work])
@pytest.mark.parametrize(
    "target", ["new", "deep/new", "to_empty/new", "empty/../new", "n" * 236, "größe/赤"]
)
def test_what_can_be_made_passes(tmp_path, check, target):
    furnish(tmp_path)
    check(tmp_path / target, "run_dir")


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("file/new", "flag must be a place that can be written to, got .*: Not a directory"),
        ("n" * 237, "flag must be a place that can be written to, got .*: File name too long"),
        ("to_nothing", "must not lead over what is not there, .*to_nothing, which names nothing$"),
        ("to_nothing/new", "must not lead over what is not there, .*to_nothing, which names"),
        ("link", "must not lead over what is not there"),
        ("gone/../new", "must not lead over what is not there, .*gone/..$"),
        ("empty/..", "(exists already|must be a name in some folder|a file, not a folder)"),
    ],
)
@pytest.mark.parametrize("check", [check_new_folder, check_file, check_work])
def test_what_leads_nowhere_is_refused(tmp_path, check, target, complaint):
    furnish(tmp_path)
    with pytest.raises(InputError, match=complaint):
        check(tmp_path / target, "flag")


@pytest.mark.parametrize("path", ["", ".", "../cwd", "{cwd}"])
def test_the_working_directory_is_no_target(tmp_path, monkeypatch, path):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    path = Path(path.format(cwd=tmp_path / "cwd"))
    for check in (check_new_folder, check_work):
        with pytest.raises(InputError, match=f"flag must be a name in some folder, got '{path}'"):
            check(path, "flag")
    check_working_folder(path, "flag")  # where nothing is made beside it


@pytest.mark.parametrize("target", ["full", "file", "to_full", "to_file", "pipe"])
def test_what_holds_something_is_no_new_folder(tmp_path, target):
    furnish(tmp_path)
    with pytest.raises(InputError, match=f"{target} exists already: name a new folder or remove"):
        check_new_folder(tmp_path / target, "flag")


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("full", "flag must be a file, not a folder"),
        ("to_empty", "flag must be a file, not a folder"),
        ("pipe", "flag must be a file that can be replaced"),
        ("/dev/null", "flag must be a file that can be replaced"),
    ],
)
def test_a_folder_and_a_device_are_no_files(tmp_path, target, complaint):
    furnish(tmp_path)
    with pytest.raises(InputError, match=complaint):
        check_file(tmp_path / target, "flag")


@pytest.mark.parametrize("check", [check_new_folder, check_file, check_work])
def test_nothing_is_made_where_the_command_reads(tmp_path, check):
    furnish(tmp_path)
    for target in ("empty", "empty/new", "to_empty/deep/new", "full/../empty/new"):
        with pytest.raises(InputError, match="flag must not lie in what is read, "):
            check(tmp_path / target, "flag", [tmp_path / "full", None, tmp_path / "to_empty"])
    check(tmp_path / "new", "flag", [tmp_path / "empty"])


def refuse_to_write(*args: object, **how: object) -> str:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("check", [check_new_folder, check_file, check_working_folder])
@pytest.mark.parametrize("target", ["new", "empty"])
def test_a_disk_that_takes_nothing_is_refused(tmp_path, monkeypatch, check, target):
    furnish(tmp_path)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse_to_write)
    if check is not check_file or target == "new":
        with pytest.raises(InputError, match="can be written to, got .*: Read-only file system"):
            check(tmp_path / target, "flag")


@pytest.fixture
def mounted(tmp_path) -> Callable[..., Path]:
    """Mounts something at a path, until the test is over."""
    at: list[Path] = []

    def mount(path: Path, *how: str) -> Path:
        if subprocess.run(["mount", *how, path], capture_output=True).returncode:
            pytest.skip("may not mount")
        at.append(path)
        return path

    yield mount
    for path in reversed(at):
        subprocess.run(["umount", path], check=True)


def test_a_mount_is_no_folder_to_replace_but_one_to_work_in(tmp_path, mounted):
    furnish(tmp_path)
    for how in (("-t", "tmpfs", "tmpfs"), ("--bind", str(tmp_path / "full" / ".." / "empty"))):
        path = tmp_path / f"mount{len(how)}"
        path.mkdir()
        mounted(path, *how)
        before = everything_below(tmp_path)
        with pytest.raises(InputError, match="flag must be a folder that can be replaced .*; name"):
            check_new_folder(path, "flag")
        assert everything_below(tmp_path) == before
        check_work(path, "flag")
        check_new_folder(path / "new", "flag")


def test_a_mounted_file_is_no_file_to_replace(tmp_path, mounted):
    (tmp_path / "a file").touch()
    (tmp_path / "other").touch()
    check_file(tmp_path / "a file", "flag")
    mounted(tmp_path / "a file", "--bind", str(tmp_path / "other"))
    with pytest.raises(InputError, match="flag must be a file that can be replaced"):
        check_file(tmp_path / "a file", "flag")


def test_a_full_and_a_read_only_disk_are_refused_before_the_work(tmp_path, mounted):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted(disk, "-t", "tmpfs", "-o", "size=64k", "tmpfs")
    (disk / "empty").mkdir()
    (disk / "filler").write_bytes(bytes(64 << 10))
    with pytest.raises(InputError, match="No space left on device"):
        check_new_folder(disk / "new", "flag")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for check in (check_new_folder, check_file, check_work):
        with pytest.raises(InputError, match="Read-only file system"):
            check(disk / "new", "flag")
    with pytest.raises(InputError, match="Read-only file system"):
        check_working_folder(disk / "empty", "flag")
