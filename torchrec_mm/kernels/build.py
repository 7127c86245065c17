"""Loops that PyTorch and NumPy have no operator for, in C++: compiled where they run, on first use.

A kernel is one file ``torchrec_mm/kernels/<name>.cpp`` of plain C++20 whose entry points are
``extern "C"`` functions over pointers and sizes; it may include the headers of this room. No
PyTorch header: it compiles in seconds.
Every kernel stands beside a PyTorch or NumPy version that gives the same answer, more slowly.
"""

import ctypes
import fcntl
import functools
import hashlib
import logging
import os
import platform
import shlex
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

SWITCH = "TORCHREC_MM_KERNELS"
FLAGS = ("-O3", "-march=native", "-fopenmp")
LIBRARY = ("-std=c++20", "-fPIC", "-shared")
FOLDER = Path(__file__).parent

logger = logging.getLogger(__name__)


def compiled(name: str, *flags: str) -> ctypes.CDLL | None:
    """Compile and load a kernel, once a process.

    Calls through ctypes release the GIL and check nothing: the caller passes ``data_ptr()`` of
    contiguous tensors of the right dtype, and the number of threads, usually
    ``torch.get_num_threads()``. The library lies under a hash of source, flags, processor,
    environment and user, in ``TORCH_EXTENSIONS_DIR`` where that is set; else in the user's cache
    folder, or in the one for temporary files where there is none to write to. Processes that ask
    for it at once wait for the first.

    Args:
        name: file in this room without ``.cpp``.
        flags: compiler flags besides ``FLAGS``.

    Returns:
        The library, or None where none can be compiled (why is said once, as a warning) or where
        the environment says ``TORCHREC_MM_KERNELS=0``: the caller takes the PyTorch version.
    """
    if os.environ.get(SWITCH) == "0":
        return None
    library, why = attempt(name, *flags)
    if library is None:
        _warn_once(name, why)
    return library


@contextmanager
def plain_versions() -> Iterator[None]:
    """In this block all callers take the PyTorch version, whatever was compiled before.

    For the whole process, so for commands that do one thing at a time.
    """
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    try:
        yield
    finally:
        os.environ.pop(SWITCH) if before is None else os.environ.update({SWITCH: before})


@functools.cache
def attempt(name: str, *flags: str) -> tuple[ctypes.CDLL | None, str]:
    """``compiled`` without a word: the library and where it lies, or None and why, in a line."""
    sources = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.h"))}
    sources["kernel.cpp"] = (FOLDER / f"{name}.cpp").read_bytes()
    command = [*shlex.split(os.environ.get("CXX") or "c++"), *LIBRARY, *FLAGS, *flags]
    parts = [*sources.values(), " ".join(command).encode(), _processor(), sys.prefix.encode()]
    digest = hashlib.sha256(bytes(0).join([*parts, str(os.geteuid()).encode()])).hexdigest()
    why = "no folder to write it to"
    for root in _roots():
        folder = root / f"torchrec_mm_{name}_{digest[:16]}"
        try:
            _make_ours(folder)
            return ctypes.CDLL(str(_built(folder, sources, command))), str(folder)
        except OSError as error:  # of the place: not ours, full, read-only, mounted noexec
            why = " ".join(str(error).split())
        except RuntimeError as error:  # of the compiler: the same everywhere
            return None, str(error)
    return None, why


@functools.cache
def _warn_once(name: str, why: str) -> None:
    logger.warning("%s runs without its compiled kernel, more slowly: %s", name, why)


def _roots() -> Iterator[Path]:
    """Where libraries may lie, the best first."""
    if chosen := os.environ.get("TORCH_EXTENSIONS_DIR"):
        yield Path(chosen).absolute()
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if cache.is_absolute():  # not where there is no HOME: that would be a folder called ~
        yield cache / "torchrec_mm"
    with suppress(OSError):
        yield Path(tempfile.gettempdir())


def _make_ours(folder: Path) -> None:
    """Make a folder that only this user can write to, or find it so: what lies in it is run.

    Raises:
        PermissionError: others can.
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    status, above = folder.lstat(), folder.parent.stat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    may_be_swapped = above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX
    if not is_ours or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or may_be_swapped:
        raise PermissionError(f"{folder} must be a folder that this user alone can write to")


def _built(folder: Path, sources: dict[str, bytes], command: list[str]) -> Path:
    """Path of the library, compiled only if it is not there; whole or not there."""
    library = folder / "kernel.so"
    if library.exists():
        return library
    with _alone_in(folder) as alone:
        if library.exists():  # made by the process that we waited for
            return library
        for left in folder.glob("building-*") if alone else ():  # by a process that was killed
            rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="building-") as aside:
            for name, content in sources.items():
                Path(aside, name).write_bytes(content)
            _compile([*command, "kernel.cpp", "-o", "kernel.so"], aside)
            # To disk before it gets its name: after a power cut an empty file would be loaded.
            with open(Path(aside, "kernel.so"), "rb") as written:
                os.fsync(written.fileno())
            os.replace(Path(aside, "kernel.so"), library)
    return library


@contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Wait until no other process is in this block; False where the file system has no locks.

    The lock ends with the process, however that ends.
    """
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def _compile(command: list[str], folder: str) -> None:
    """Run the compiler in a folder, its own temporary files there too.

    Raises:
        RuntimeError: there is none, or the line in which it says what is wrong.
        OSError: the disk is full.
    """
    words = {"LC_ALL": "C", "TMPDIR": folder}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise RuntimeError(f"no C++ compiler {command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{command[0]} left with {done.returncode}"]
        why = next((line for line in lines if "error:" in line), lines[0])
        raise (OSError if "No space left" in done.stderr else RuntimeError)(why.strip())


def _processor() -> bytes:
    """What ``-march=native`` depends on: a home folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    return b"\n".join(sorted({x for x in lines if x.startswith((b"flags", b"Features"))}))
