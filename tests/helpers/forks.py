"""Python processes that start at once: forks of one that has imported what they need.

Importing torch and torchrec takes seconds, and a job of two ranks under torchrun does it three
times. A ``Fork`` takes the place of ``subprocess.Popen([sys.executable, "-m", MODULE, ...])``: a
process with an id, an environment, a folder, output and a status of its own, to be signalled and
killed as any other. It comes out of multiprocessing's fork server, which starts on first use,
imports PRELOAD, and does nothing else. Ranks of a torchrun that is a fork are forks, too.

What a fork does not show, and so needs a Python that really starts: what a module imports,
variables that libraries read when they are imported, how the interpreter ends (a fork flushes its
output and is gone), and /proc/PID/environ, which is the server's.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TextIO
from unittest import mock

from tests.conftest import leave_what_is_loaded_to_itself

PRELOAD = (
    __name__,
    *(f"apps.{app}" for app in ("embed_items", "evaluate", "pretrain", "train_make")),
    *("apps.train_ranker", "sentence_transformers", "timm", "torch.distributed.run"),
)
multiprocessing.set_forkserver_preload(list(PRELOAD))

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
TWO_RANKS = (*TORCHRUN, "--nproc_per_node=2")
DEVNULL = Path(os.devnull)
PATIENCE_S = 600  # with what seems to hang

# Whether this process is a fork: what it starts comes out of itself, not out of the server.
_is_fork = False


class Fork:
    """What ``subprocess.Popen`` of the same arguments is, for a Python program.

    command: ``[sys.executable, "-u"?, "-m" MODULE | "-c" CODE | SCRIPT, *arguments]``.
    env, cwd: those of this process if None. stdout, stderr: files to append to, where this
    process's output goes if None. start_new_session: as of Popen.
    """

    def __init__(
        self,
        command: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        python, *words = map(str, command)
        assert python == sys.executable, command
        start = _Start(
            words=words,
            environment=dict(os.environ if env is None else env),
            folder=cwd or Path.cwd(),
            outputs=(stdout, stderr),
            new_session=start_new_session,
        )
        self.args, self.returncode = command, None
        context = multiprocessing.get_context("fork" if _is_fork else "forkserver")
        self._process = context.Process(target=start)
        with _nothing_as_main():
            self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The status, negative for a signal; None while it runs."""
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The status, once there is one.

        Raises:
            TimeoutExpired: it runs on after ``timeout`` seconds.
        """
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def wait_until(happens: Callable[[], object], process: "Fork | None" = None) -> None:
    """Look again and again; fail where that takes too long, or where ``process`` ends first."""
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run(
    command: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = PATIENCE_S,
) -> subprocess.CompletedProcess[str]:
    """What ``subprocess.run`` returns that captures the output as text.

    Raises:
        TimeoutExpired: it did not end by itself, and was told to.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        fork = Fork(command, env=env, cwd=cwd, stdout=out, stderr=err)
        try:
            status = fork.wait(timeout)
        finally:
            fork.terminate()  # so that torchrun takes its ranks along
        said = [file.read_text(errors="replace") for file in (out, err)]
    return subprocess.CompletedProcess(command, status, *said)


def run_on_two_ranks(*words: object, cwd: Path | None = None) -> None:
    """Run ``-m MODULE`` or a script on two ranks under torchrun; all must end well."""
    done = run([*TWO_RANKS, *words], cwd=cwd)
    assert done.returncode == 0, done.stderr[-6000:]


@contextmanager
def pools_of_forks() -> Iterator[None]:
    """For the block, what multiprocessing would spawn from this process comes out of the server."""
    get_context = multiprocessing.get_context

    def forking(method: str | None = None) -> BaseContext:
        return get_context("forkserver" if method == "spawn" else method)

    with mock.patch("multiprocessing.get_context", forking), _nothing_as_main():
        yield


def children_of(pid: int) -> list[int]:
    """Process ids; of a torchrun its ranks."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def _nothing_as_main() -> Iterator[None]:
    """For the block: multiprocessing's children run __main__ again, and that started the tests."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass(frozen=True)
class _Start:
    """What a new fork does: it becomes the program that was asked for."""

    words: list[str]
    environment: dict[str, str]
    folder: Path
    outputs: tuple[Path | None, Path | None]
    new_session: bool

    def __call__(self) -> None:
        """Settle in, then run the program."""
        global _is_fork
        _is_fork = True
        leave_what_is_loaded_to_itself()
        if self.new_session:
            os.setsid()
        os.environ.clear()
        os.environ.update(self.environment)
        tempfile.tempdir = None  # it was read from the other environment
        os.chdir(self.folder)
        _forget_signal_handlers()
        sys.orig_argv = [sys.executable, *self.words]
        for descriptor, file in enumerate(self.outputs, start=1):
            if file is not None:
                _send(descriptor, file)
        with ExitStack() as patches:
            for name in _STARTERS:
                patches.enter_context(mock.patch(name, _popen))
            # For a name in a log that is off, this looks through all loaded modules.
            patches.enter_context(mock.patch(f"{_ELASTIC}.{_METHOD_NAME}", str))
            _run_program(self.words)


_ELASTIC = "torch.distributed.elastic"
_METHOD_NAME = "rendezvous.dynamic_rendezvous.get_method_name"
# Where torchrun and the pipeline start Python.
_STARTERS = (
    f"{_ELASTIC}.multiprocessing.subprocess_handler.subprocess_handler.Popen",
    "torchrec_mm.stages.launch.Popen",
)


def _popen(
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    start_new_session: bool = False,
    pass_fds: Sequence[int] = (),
) -> Fork:
    """In the place of Popen, as _STARTERS call it. A fork has all descriptors, asked for or not."""
    files = [None if file is None else Path(file.name) for file in (stdout, stderr)]
    return Fork(
        args, env=env, stdout=files[0], stderr=files[1], start_new_session=start_new_session
    )


def _forget_signal_handlers() -> None:
    """Those of torchrun are not its ranks'."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _send(descriptor: int, file: Path) -> None:
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(opened, descriptor)
    os.close(opened)


def _run_program(words: list[str]) -> None:
    """As Python does what its command line says."""
    if words[0] == "-u":
        sys.stdout.reconfigure(write_through=True)
        words = words[1:]
    kind = words[0]
    if kind == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        sys.modules.pop(words[1], None)  # it is __main__ now
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(kind).parent))
        runpy.run_path(kind, run_name="__main__")
