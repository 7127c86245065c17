"""The whole method on a simulated market: both phases, every method, one table and one page.

python -m apps.demo
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from torchrec_mm.config import parse, run, to_yaml
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file

METHODS = ("bias", "id", "vector", "simscore", "simtier", "make", "simtier+make")
CONTROL = "simtier+make"


@dataclass(frozen=True)
class DemoConfig:
    """From nothing to a result table: simulate a market, pre-train, embed, train, evaluate, report.

    Phase one and one of the rankers are launched by TorchX with two ranks each, the other runs
    share a pool of processes. Started again after an interruption, it goes on where it stopped.
    """

    run_dir: Path = Path("runs/demo")
    """Folder for everything; report.json and report.html end up in it."""

    items: int = 3_000
    """Items that the market draws."""

    impressions: int = 150_000
    """Simulated impressions, training and test."""

    searches: int = 8_000
    """Simulated searches."""

    seeds: int = 2
    """Runs of each method."""

    processes: int = min(os.cpu_count() or 1, 8)
    """Rankers trained side by side, one thread each."""

    seed: int = 0
    """Of the market and of the first run of each method."""


@dataclass(frozen=True)
class Job:
    """Commands that train and evaluate one run, one after another, and the run's folder."""

    commands: tuple[tuple[str, tuple[str, ...]], ...]
    run_dir: Path


class Stages:
    """Does each stage once, and remembers how long it took, also across interruptions."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "stages.json"
        self.seconds = json.loads(self.path.read_text()) if self.path.is_file() else {}

    @contextmanager
    def stage(self, name: str) -> Iterator[bool]:
        """Yield whether the stage is still to be done; count its time when it succeeds."""
        if name in self.seconds:
            yield False
            return
        print(f"demo: {name}", flush=True)
        start = time.monotonic()
        yield True
        self.seconds[name] = round(time.monotonic() - start, 1)
        with new_file(self.path) as aside:
            aside.write_text(json.dumps(self.seconds))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(DemoConfig, argv)
    _claim(config)
    root, stages = config.run_dir, Stages(config.run_dir)
    market = root / "market"
    with stages.stage("simulated market") as todo:
        if todo:
            _call(
                "make_market",
                *("--run_dir", _cleared(market), "--items", config.items),
                *("--impressions", config.impressions, "--searches", config.searches),
                *("--seed", config.seed),
            )
    scl = root / "scl"
    with stages.stage("phase one: SCL, two ranks through TorchX") as todo:
        if todo:
            _torchx(
                "pretraining.py:pretrain",
                *("--data", market, "--run_dir", scl, "--bank_slots", 16_384, "--resume"),
            )
    vectors = {name: root / "vectors" / name for name in ("off-the-shelf", "scl", "random")}
    with stages.stage("item vectors") as todo:
        if todo:
            for name, folder in vectors.items():
                encoder = scl if name == "scl" else name
                _call(
                    "embed_items",
                    *("--data", market, "--encoder", encoder, "--run_dir", _cleared(folder)),
                )
    seeds = range(config.seed, config.seed + config.seeds)
    rankers = root / "rankers"
    with stages.stage("phase two: MAKE") as todo:
        if todo:
            jobs = [
                _make_job(rankers, market, vectors[name], name, seed)
                for name in ("scl", "random")
                for seed in seeds
            ]
            _pool(jobs, config.processes)
    with stages.stage("phase two: a ranker on two ranks through TorchX") as todo:
        if todo:
            job = _ranker_job(rankers, market, vectors["scl"], "simtier+make", "scl", seeds[0])
            (_, flags), _ = job.commands
            _torchx("ranking.py:train_ranker", *flags)
    with stages.stage("phase two: all rankers") as todo:
        if todo:
            jobs = [_epochs_job(rankers, market, seeds[0])]  # first, as it takes longest
            jobs += [
                _ranker_job(rankers, market, vectors["scl"], method, "scl", seed)
                for method in METHODS
                for seed in seeds
            ]
            jobs += [
                _ranker_job(rankers, market, vectors["random"], CONTROL, "random", seed)
                for seed in seeds
            ]
            _pool(jobs, config.processes)
    if not (root / "report.json").is_file():
        _call(
            "report",
            *("--runs", root, "--run_dir", root, "--data", market),
            *("--off_the_shelf_vectors", vectors["off-the-shelf"]),
            *("--scl_vectors", vectors["scl"], "--seconds", sum(stages.seconds.values())),
            *("--title", "Item vectors on a simulated market"),
        )
    _print_table(root / "report.json")


def _claim(config: DemoConfig) -> None:
    """Take the folder, or go on in it if it is of the same config."""
    written = config.run_dir / "demo.yaml"
    text = to_yaml(config)
    if written.is_file() and written.read_text() != text:
        raise InputError(
            f"run_dir {config.run_dir} holds a demo with other settings: remove it, or name another"
        )
    if not written.is_file():
        if config.run_dir.exists() and any(config.run_dir.iterdir()):
            raise InputError(f"run_dir {config.run_dir} holds something else: name a new folder")
        with new_file(written) as aside:
            aside.write_text(text)


def _make_job(rankers: Path, market: Path, vectors: Path, name: str, seed: int) -> Job:
    run_dir = rankers / f"make-training-{name}-{seed}"
    flags = ("--data", market, "--vectors", vectors, "--run_dir", run_dir, "--seed", seed)
    options = ("--test_auc", "--resume")
    return Job((("train_make", _words(flags + options)),), run_dir)


def _ranker_job(
    rankers: Path, market: Path, vectors: Path, method: str, name: str, seed: int
) -> Job:
    run_dir = rankers / f"{method}-{name}-{seed}"
    flags = ("--method", method, "--data", market, "--run_dir", run_dir, "--seed", seed)
    if method not in ("bias", "id"):
        flags += ("--vectors", vectors)
    if "make" in method:
        flags += ("--make", rankers / f"make-training-{name}-{seed}")
    train = ("train_ranker", _words((*flags, "--resume")))
    return Job((train, ("evaluate", _words(("--run_dir", run_dir, "--data", market)))), run_dir)


def _epochs_job(rankers: Path, market: Path, seed: int) -> Job:
    """The ID model for as many epochs as MAKE takes: where it overfits. Not part of the table."""
    run_dir = rankers / f"id-epochs-{seed}"
    flags = ("--method", "id", "--data", market, "--run_dir", run_dir, "--seed", seed)
    options = ("--epochs", 5, "--test_auc", "--resume")
    return Job((("train_ranker", _words(flags + options)),), run_dir)


def _pool(jobs: list[Job], processes: int) -> None:
    """Run the jobs side by side; the first failure ends it all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_one_thread) as pool:
        for future in tqdm([pool.submit(_work, job) for job in jobs], disable=None):
            future.result()


def _one_thread() -> None:
    import_module("torch").set_num_threads(1)


def _work(job: Job) -> None:
    if (job.run_dir / "metrics.json").is_file():
        return
    for app, flags in job.commands:
        _call(app, *flags)


def _call(app: str, *flags: object) -> None:
    """Run a command of ours in this process."""
    main_of: Callable[[Sequence[str]], None] = import_module(f"apps.{app}").main
    main_of(list(_words(flags)))


def _torchx(component: str, *flags: object) -> None:
    """Launch a command of ours through TorchX on two local ranks, one thread each."""
    command = [
        str(Path(sys.executable).with_name("torchx")),
        *("run", "-s", "local_cwd", f"torchx_components/{component}", "-j", "1x2", "--"),
        *_words(flags),
    ]
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": beside_python}
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}")


def _cleared(folder: Path) -> Path:
    """The folder, free for a stage that was cut short to start over."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _words(flags: Sequence[object]) -> tuple[str, ...]:
    return tuple(str(flag) for flag in flags)


def _print_table(report: Path) -> None:
    rows = json.loads(report.read_text())["rows"]
    print(f"\nSimulated market, {report}\n{'method':24}{'seed':>5}{'AUC':>9}{'GAUC':>9}")
    for row in rows:
        print(f"{row['method']:24}{row['seed']:5}{row['auc']:9.4f}{row['gauc']:9.4f}")


if __name__ == "__main__":
    sys.exit(run(main))
