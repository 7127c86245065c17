"""Loops that PyTorch has no operator for, in C++: compiled where they run, on first use.

A kernel is one file ``torchrec_mm/kernels/<name>.cpp`` of plain C++20 whose entry points are
``extern "C"`` functions over pointers and sizes; it may include the headers of this room. No
PyTorch header: it compiles in seconds.
Every kernel stands beside a PyTorch version that gives the same answer, only later.
"""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

SWITCH = "TORCHREC_MM_KERNELS"
FLAGS = ("-O3", "-march=native", "-fopenmp")
FOLDER = Path(__file__).parent

logger = logging.getLogger(__name__)


def compiled(name: str, *flags: str) -> ctypes.CDLL | None:
    """Compile and load a kernel, once a process.

    Calls through ctypes release the GIL and check nothing: the caller passes ``data_ptr()`` of
    contiguous tensors of the right dtype, and the number of threads, usually
    ``torch.get_num_threads()``. The library lies in PyTorch's folder of extensions
    (``TORCH_EXTENSIONS_DIR``) under a hash of source, flags, processor and environment;
    processes that ask for it at once wait for the first.

    Args:
        name: file in this room without ``.cpp``.
        flags: compiler flags besides ``FLAGS``.

    Returns:
        The library, or None where no compiler is (said once, as a warning) or where the
        environment says ``TORCHREC_MM_KERNELS=0``: the caller takes the PyTorch version.
    """
    return None if os.environ.get(SWITCH) == "0" else _load(name, (*FLAGS, *flags))


@functools.cache
def _load(name: str, flags: tuple[str, ...]) -> ctypes.CDLL | None:
    files = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.h"))}
    files["kernel.cpp"] = (FOLDER / f"{name}.cpp").read_bytes()
    parts = (*files.values(), " ".join(flags).encode(), _processor(), sys.prefix.encode())
    module = f"torchrec_mm_{name}_{hashlib.sha256(bytes(0).join(parts)).hexdigest()[:16]}"
    try:
        return ctypes.CDLL(_built(module, files, flags))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        why = next((line for line in lines if "error:" in line), lines[0])
        logger.warning("%s runs without its compiled kernel, more slowly: %s", name, why)
        return None


def _built(module: str, files: dict[str, bytes], flags: tuple[str, ...]) -> str:
    """Path of the library, which PyTorch builds only if it is not there.

    The sources lie beside it, so that every checkout of them shares one build.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # talks of CUDA
    import torch.utils.cpp_extension as cpp_extension

    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    folder = Path(root, module)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        _place(folder / name, content)
    with _ninja_on_path():
        return cpp_extension.load(
            module,
            [str(folder / "kernel.cpp")],
            extra_cflags=list(flags),
            extra_ldflags=["-fopenmp"],
            build_directory=str(folder),
            is_python_module=False,
        )


@contextlib.contextmanager
def _ninja_on_path() -> Iterator[None]:
    """PyTorch calls ``ninja`` by name; it lies beside this Python, activated or not."""
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), path])
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _processor() -> bytes:
    """What ``-march=native`` depends on: a home folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    return b"\n".join(sorted({x for x in lines if x.startswith((b"flags", b"Features"))}))


def _place(path: Path, content: bytes) -> None:
    if not path.exists():
        handle, aside = tempfile.mkstemp(dir=path.parent)
        with open(handle, "wb") as file:
            file.write(content)
        os.utime(aside, (1, 1))  # ninja goes by time: whoever writes it, it is the same file
        os.replace(aside, path)
