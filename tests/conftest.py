"""What every test run shares: no network, few threads, and a word on what could not be run."""

import gc
import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:  # tests of pure rooms start without them
    from tests.helpers.small_market import SmallMarket
    from torchrec_mm.parallel.process_group import Worker

# Before anything imports torch or a model library; the processes that tests start inherit these.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors, and several ranks at a time
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

# A busy machine is no failure: neither running nor drawing an example has a time limit.
slow = [HealthCheck.too_slow]
settings.register_profile("any machine", deadline=None, suppress_health_check=slow)
settings.load_profile("any machine")

# Marker -> commands that must be on the PATH, modules that must be importable.
COMPONENTS = {
    "slurm": (("sbatch", "slurmctld", "slurmd", "munged"), ()),
    "redis": (("redis-server",), ("redis",)),
    "valkey": (("valkey-server",), ("redis",)),
    "kafka": (("tansu",), ("confluent_kafka",)),
    "browser": (("chromium",), ()),
    "spark": (("java",), ("pyspark",)),
}

# The one component that CI has not. ``pytest -m gpu`` runs its tests alone, with GPUs in sight;
# all others state what a CPU does, and see none.
GPU = "gpu"

# ``make test-slow`` alone runs these, and what is marked slow itself: each takes more than seconds.
SLOW = "slow"
ALWAYS_SLOW = ("slurm", "spark", "kill")

# CI sets this: there a missing component is an error, not something to leave out.
ALL = os.environ.get("TORCHREC_MM_ALL") == "1"


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, before anything looks for them; the processes that tests start inherit that.

    Triton's kernels are then interpreted, which is settled when triton is imported.
    """
    if config.option.markexpr != GPU:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def worker() -> Iterator["Worker"]:
    """This process in a group of one, for tests that call collectives directly."""
    from torchrec_mm.parallel.library_warnings import suppress_library_warnings
    from torchrec_mm.parallel.process_group import process_group

    with suppress_library_warnings(), process_group() as alone:
        yield alone


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> "SmallMarket":
    """A small market, which the tests of a module only read."""
    from tests.helpers.small_market import write_small_market

    return write_small_market(tmp_path_factory.mktemp("market"))


@pytest.fixture
def refused(capsys) -> Callable[[Callable, list], str]:
    """Runs a command with flags: the one line that it leaves on stderr with status 2."""
    from torchrec_mm.config import run

    def call(main: Callable, flags: list) -> str:
        capsys.readouterr()
        assert run(main, list(map(str, flags))) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


def missing(marker: str) -> str:
    """The parts of a component that this machine lacks, as words; empty if none."""
    if marker == GPU:
        from torchrec_mm import gpus

        return "" if gpus.count() else "no NVIDIA GPU in sight: pytest -m gpu"
    commands, modules = COMPONENTS[marker]
    lacking = [command for command in commands if not shutil.which(command)]
    lacking += [module for module in modules if not importlib.util.find_spec(module)]
    return f"no {', '.join(lacking)}" if lacking else ""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait for other processes come first, so that none of them is left for the end."""
    waiting = {item for item in items for mark in ALWAYS_SLOW if item.get_closest_marker(mark)}
    for item in waiting:
        item.add_marker(SLOW)
    files = {item.path for item in waiting}
    items.sort(key=lambda item: item.path not in files)


def pytest_collection_finish() -> None:
    leave_what_is_loaded_to_itself()


def leave_what_is_loaded_to_itself() -> None:
    """Spare the garbage collector what is imported by now, which is most of what there is.

    Training collects its garbage several times a run, and a small run would do little else.
    """
    gc.freeze()
    gc.unfreeze = lambda: None  # training freezes, too, and would then undo both


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose component is not here, or fail it where nothing may be left out."""
    for marker in (*COMPONENTS, GPU):
        if item.get_closest_marker(marker) and (lacking := missing(marker)):
            if ALL and marker != GPU:
                pytest.fail(f"{marker} test, but this machine has {lacking}", pytrace=False)
            # Travels with the test's report, out of the process that ran the test.
            item.user_properties.append(("left out", f"{marker} ({lacking})"))
            pytest.skip(lacking)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was left out, once a component."""
    if terminalreporter.config.option.markexpr == f"not {SLOW}":
        terminalreporter.write_line(f"left out: what is {SLOW} (make test-{SLOW})", yellow=True)
    skipped = terminalreporter.stats.get("skipped", [])
    properties = [pair for report in skipped for pair in report.user_properties]
    left_out = Counter(component for name, component in properties if name == "left out")
    for component, count in sorted(left_out.items()):
        terminalreporter.write_line(f"left out: {count} {component}", yellow=True)
