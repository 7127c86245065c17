"""Kernels are compiled on first use, once, wherever a compiler is."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from torchrec_mm.kernels import build

SOURCE = 'extern "C" int twice(int x) {{ return {factor} * x; }}\n'


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A folder of sources and an empty cache."""
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    build._load.cache_clear()
    yield tmp_path
    build._load.cache_clear()


def libraries(room: Path) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted(room.glob("cache/*/*.so"))]


def test_a_kernel_is_compiled_once_and_again_when_its_source_changes(room):
    (room / "small.cpp").write_text(SOURCE.format(factor=2))
    assert build.compiled("small").twice(21) == 42
    first = libraries(room)
    build._load.cache_clear()  # as another process would
    assert build.compiled("small").twice(21) == 42
    assert libraries(room) == first

    (room / "small.cpp").write_text(SOURCE.format(factor=3))
    build._load.cache_clear()
    assert build.compiled("small").twice(21) == 63
    assert len(libraries(room)) == 2


def test_processes_that_ask_at_once_share_one_build(room):
    (room / "small.cpp").write_text('#include "two.h"\n' + SOURCE.format(factor="kTwo"))
    (room / "two.h").write_text("constexpr int kTwo = 2;\n")
    program = (
        "from pathlib import Path; from torchrec_mm.kernels import build; "
        f"build.FOLDER = Path({str(room)!r}); print(build.compiled('small').twice(4))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in processes] == ["8\n"] * 2
    assert len(libraries(room)) == 1


@pytest.mark.parametrize("cause", ["no compiler", "no ninja", "an error in the source"])
def test_where_nothing_compiles_one_line_says_so(room, monkeypatch, caplog, cause):
    source = SOURCE.format(factor=2) if cause.startswith("no") else "int main( {\n"
    (room / "small.cpp").write_text(source)
    if cause == "no compiler":
        monkeypatch.setenv("CXX", "no-such-compiler")
    if cause == "no ninja":
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(build.sysconfig, "get_path", lambda name: "")
    with caplog.at_level(logging.WARNING):
        assert build.compiled("small") is None
        assert build.compiled("small") is None
    (record,) = (r for r in caplog.records if r.name == build.__name__)
    assert record.getMessage().startswith("small runs without its compiled kernel")
    assert "\n" not in record.getMessage()


def test_kernels_can_be_switched_off(monkeypatch, caplog):
    monkeypatch.setenv("TORCHREC_MM_KERNELS", "0")
    assert build.compiled("distinct") is None
    assert not caplog.records
