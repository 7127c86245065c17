"""Kernels are compiled on first use, once, wherever a compiler is, and where nobody else writes."""

import fcntl
import logging
import os
import pwd
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from torchrec_mm.kernels import build

SOURCE = 'extern "C" int twice(int x) {{ return {factor} * x; }}\n'


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A folder with one kernel, and an empty cache."""
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    (tmp_path / "small.cpp").write_text(SOURCE.format(factor=2))
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    """Be as another process."""
    build.attempt.cache_clear()
    build._warn_once.cache_clear()


def libraries(room: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted(room.glob("cache/*/*.so"))]


def why_not(name: str = "small") -> str:
    library, why = build.attempt(name)
    assert library is None
    return why


def test_a_kernel_is_compiled_once_and_again_when_its_source_changes(room):
    assert build.compiled("small").twice(21) == 42
    first = libraries(room)
    forget()
    assert build.compiled("small").twice(21) == 42
    assert libraries(room) == first

    (room / "small.cpp").write_text(SOURCE.format(factor=3))
    forget()
    assert build.compiled("small").twice(21) == 63
    assert len(libraries(room)) == 2


def test_processes_that_ask_at_once_share_one_build(room):
    (room / "small.cpp").write_text('#include "two.h"\n' + SOURCE.format(factor="kTwo"))
    (room / "two.h").write_text("constexpr int kTwo = 2;\n")
    compiler = counting_compiler(room)
    program = (
        "from pathlib import Path; from torchrec_mm.kernels import build; "
        f"build.FOLDER = Path({str(room)!r}); print(build.compiled('small').twice(4))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"CXX": compiler},
        )
        for _ in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == ["8\n"] * 3
    assert (room / "calls").read_text() == "call\n"


def counting_compiler(room: Path, before: str = "") -> str:
    """A compiler that notes each call, after a line of shell."""
    script = room / "cxx"
    script.write_text(f'#!/bin/sh\n{before}\necho call >> {room}/calls\nexec c++ "$@"\n')
    script.chmod(0o755)
    return str(script)


def test_nobody_else_may_write_where_a_library_lies_whatever_the_umask(room):
    before = os.umask(0)
    try:
        assert build.compiled("small").twice(21) == 42
    finally:
        os.umask(before)
    (folder,) = (room / "cache").iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(os.listdir(folder)) == ["kernel.so", "lock"]


def test_each_user_of_a_shared_cache_has_a_library_of_their_own(room, monkeypatch):
    assert build.compiled("small").twice(21) == 42
    forget()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    why = why_not()  # the folder is new, and not that user's: no real second user is here
    assert why.endswith("must be a folder that this user alone can write to")
    assert len(list((room / "cache").iterdir())) == 2


@pytest.mark.parametrize("how", ["others may write", "a link", "anyone may put another there"])
def test_a_library_that_others_could_have_written_is_never_loaded(room, how):
    assert build.compiled("small").twice(21) == 42
    forget()
    (folder,) = (room / "cache").iterdir()
    if how == "others may write":
        folder.chmod(0o777)
    if how == "a link":
        folder.rename(room / "moved")
        folder.symlink_to(room / "moved")
    if how == "anyone may put another there":
        (room / "cache").chmod(0o777)
    assert why_not() == f"{folder} must be a folder that this user alone can write to"
    (room / "cache").chmod(0o1777)  # sticky: only the owner of a folder moves it
    forget()
    assert (build.attempt("small")[0] is not None) == (how == "anyone may put another there")


def test_without_a_home_nothing_is_left_in_the_working_directory(room, monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    (room / "here").mkdir()
    (room / "tmp").mkdir()
    monkeypatch.chdir(room / "here")
    for name in ("TORCH_EXTENSIONS_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(room / "tmp"))
    library, folder = build.attempt("small")
    assert library.twice(21) == 42
    assert Path(folder).parent == room / "tmp"
    assert os.listdir(room / "here") == []


@pytest.mark.parametrize("cause", ["no folder", "full", "noexec"])
def test_a_cache_that_cannot_be_used_gives_way_to_the_folder_for_temporary_files(
    room, monkeypatch, cause
):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(room / "home"))
    (room / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room / "tmp"))
    if cause == "no folder":
        (room / "home").touch()
    if cause == "full":
        full = 'case $PWD in */home/*) echo "x.s: No space left on device" >&2; exit 1;; esac'
        monkeypatch.setenv("CXX", counting_compiler(room, full))
    if cause == "noexec":
        load = build.ctypes.CDLL

        def refuse(path):
            if "/home/" in path:
                raise OSError(f"{path}: failed to map segment from shared object")
            return load(path)

        monkeypatch.setattr(build.ctypes, "CDLL", refuse)
    library, folder = build.attempt("small")
    assert library.twice(21) == 42
    assert Path(folder).parent == room / "tmp"


def test_where_nothing_can_be_written_the_kernel_is_done_without(room, monkeypatch):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "no absolute path")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [])
    assert why_not() == "no folder to write it to"


def test_a_cache_that_was_asked_for_gives_way_to_nothing(room):
    (room / "cache").touch()
    assert why_not().startswith("[Errno 17] File exists: ")


def test_what_a_killed_compiler_left_neither_stops_the_next_nor_stays(room):
    assert build.compiled("small").twice(21) == 42
    (folder,) = (room / "cache").iterdir()
    (folder / "kernel.so").unlink()
    (folder / "building-killed").mkdir()
    forget()
    assert build.compiled("small").twice(21) == 42
    assert sorted(os.listdir(folder)) == ["kernel.so", "lock"]


def test_a_file_system_without_locks_will_do(room, monkeypatch):
    def none(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    assert build.compiled("small").twice(21) == 42


@pytest.mark.parametrize(
    ("cause", "why"),
    [
        ("no compiler", "no C++ compiler no-such-compiler: No such file or directory"),
        ("a silent compiler", "cxx left with 1"),
        ("a compiler of many tongues", "error: in C, files in /"),
        ("an error in the source", "kernel.cpp:1:5: error: "),
    ],
)
def test_where_nothing_compiles_one_line_says_so(room, monkeypatch, caplog, cause, why):
    if cause == "an error in the source":
        (room / "small.cpp").write_text("int main( {\n")
    if cause == "no compiler":
        monkeypatch.setenv("CXX", "no-such-compiler")
    if cause == "a silent compiler":
        monkeypatch.setenv("CXX", counting_compiler(room, "exit 1"))
    if cause == "a compiler of many tongues":
        says = 'echo "note: Fehler" >&2; echo "error: in $LC_ALL, files in $TMPDIR" >&2; exit 1'
        monkeypatch.setenv("CXX", counting_compiler(room, says))
    with caplog.at_level(logging.WARNING):
        assert build.compiled("small") is None
        assert build.compiled("small") is None
    (record,) = (r for r in caplog.records if r.name == build.__name__)
    said = record.getMessage()
    assert said.startswith("small runs without its compiled kernel, more slowly: ") and why in said
    assert "\n" not in said
    assert libraries(room) == []


def test_the_compiler_may_be_of_several_words(room, monkeypatch):
    monkeypatch.setenv("CXX", "env c++")
    assert build.compiled("small").twice(21) == 42


def test_kernels_can_be_switched_off(monkeypatch, caplog):
    monkeypatch.setenv("TORCHREC_MM_KERNELS", "0")
    assert build.compiled("distinct") is None
    assert not caplog.records
