"""The whole method on a simulated market: both phases, every method, one table and one page.

python -m apps.demo
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchrec_mm.commands import call, component_of, module_of
from torchrec_mm.config import check_fields, flag_words, parse, run, to_yaml
from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.stages.claim import claimed
from torchrec_mm.stages.jobs import Job, JobPool, finish
from torchrec_mm.targets import check_working_folder

# Of phase one. The bank is below the market's 5 400 training searches: no key is in it twice. At
# width 384 recall@10 is 0.560, not 0.553, and all that reads the vectors has three times as much.
PRETRAIN = {"bank_slots": 4_096, "width": 128, "learning_rate": 3e-3}
# What the pool's jobs import.
LOADED = ("torchrec", "timm", "sentence_transformers")
COMMANDS = ("embed_items", "pretrain", "train_make", "train_ranker", "evaluate")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """From nothing to a result table: simulate a market, pre-train, embed, train, evaluate, report.

    SCL and one of the rankers are launched by TorchX with two ranks each, or one where there is one
    GPU; the other runs share a pool of processes. Started again after an interruption, it goes on
    where it stopped.
    """

    run_dir: Path = Path("runs/demo")
    """Folder for everything; report.json and report.html end up in it."""
    items: int = 2_500
    """Items that the market draws."""
    impressions: int = 120_000
    """Simulated impressions, training and test."""
    searches: int = 6_000
    """Simulated searches."""
    seeds: int = 2
    """Runs of each method."""
    processes: int = min(os.cpu_count() or 1, 8)
    """Encoders and rankers trained side by side, one thread each."""
    seed: int = 0
    """Of the market and of the first run of each method."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "seeds", "processes")


class Stages:
    """Does each stage once, and remembers how long it took, also across interruptions."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "stages.json"
        self.seconds = read_json(self.path) if self.path.is_file() else {}

    def once(self, name: str, work: Callable[..., None], *arguments: Any) -> None:
        """Do the work, unless it is done; count its time when it succeeds."""
        if name in self.seconds:
            return
        print(f"demo: {name}", flush=True)
        start = time.monotonic()
        work(*arguments)
        self.seconds[name] = round(time.monotonic() - start, 1)
        write_json(self.path, self.seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(DemoConfig, argv)
    check_working_folder(config.run_dir, "run_dir")
    settings = to_yaml(config)
    if claimed(config.run_dir, "demo.yaml", settings) != settings:
        rule = f"run_dir {config.run_dir} holds a demo with other settings"
        raise InputError(f"{rule}: remove it, or name another")
    root, stages = config.run_dir, Stages(config.run_dir)
    vectors = {name: root / "vectors" / name for name in ("off-the-shelf", "scl")}
    stages.once("simulated market", _simulate, config)
    with JobPool(config.processes, loaded=(*LOADED, *map(module_of, COMMANDS))) as pool:
        stages.once("phase one: SCL, on several ranks through TorchX", _pretrain, root)
        stages.once(
            "item vectors, what each part of SCL is worth, and phase two: MAKE and all rankers",
            *(_embed_and_rank, config, vectors, pool),
        )
    if not (root / "report.json").is_file():
        call(
            "report",
            *("--runs", root, "--run_dir", root, "--data", root / "market"),
            *("--off_the_shelf_vectors", vectors["off-the-shelf"]),
            *("--scl_vectors", vectors["scl"], "--seconds", sum(stages.seconds.values())),
            *("--title", "Item vectors on a simulated market"),
        )
    _print_table(root / "report.json")


def _simulate(config: DemoConfig) -> None:
    call(
        "make_market",
        *("--run_dir", _cleared(config.run_dir / "market"), "--items", config.items),
        *("--impressions", config.impressions, "--searches", config.searches),
        *("--seed", config.seed),
    )


def _pretrain(root: Path) -> None:
    packed = root / "packed"
    if not packed.exists():
        call("pack", "--data", root / "market", "--run_dir", packed)
    _torchx(
        component_of("pretraining", "pretrain"),
        *("--packed", packed, "--run_dir", root / "scl", "--resume", *flag_words(PRETRAIN)),
    )


def _embed_and_rank(config: DemoConfig, vectors: Mapping[str, Path], pool: JobPool) -> None:
    """Side by side: features of the frozen backbones are there, left by the run of SCL.

    One of the rankers trains on several ranks through TorchX; the pool evaluates it.
    """
    from . import compare_encoders, study  # bring torch

    root = config.run_dir
    encoding = compare_encoders.CompareEncodersConfig(
        packed=root / "packed",
        run_dir=root / "encoders",
        seeds=1,
        encoders=("clip-e", "co-click", "scl-no-bank", "scl-no-triplet"),
        flags={**PRETRAIN, "holdout_by": "time"},
    )
    embedding = pool.start(_embed_jobs(root, vectors))
    encoders = compare_encoders.prepare(encoding)
    finish(embedding)
    ranking = study.StudyConfig(
        recipe="methods",
        data=root / "market",
        vectors=(vectors["scl"],),
        run_dir=root / "rankers",
        seeds=config.seeds,
        seed=config.seed,
    )
    methods = study.plan_of(ranking)
    study.prepare(methods)
    making = pool.start(methods.make_jobs(tuning=False))
    training = pool.start([*encoders.jobs, *methods.jobs(make=False)])
    finish(making)
    (command, flags), *_ = methods.job("simtier+make", config.seed).commands
    _torchx(component_of("ranking", command), *flags)
    finish([*training, *pool.start(methods.jobs(make=True))])
    print(compare_encoders.write_table(encoding, encoders))


def _embed_jobs(root: Path, vectors: Mapping[str, Path]) -> Iterator[Job]:
    """The vectors of each encoder."""
    for name, folder in vectors.items():
        encoder = root / "scl" if name == "scl" else name
        flags = {"packed": root / "packed", "encoder": encoder, "run_dir": folder}
        yield Job((("embed_items", flag_words(flags)),), folder)


def ranks_here() -> list[str]:
    """As TorchX is told: two ranks on the CPU, or one on each of the first two GPUs."""
    from torchrec_mm.parallel.process_group import usable_gpus  # brings torch

    gpus = min(2, usable_gpus())
    return ["-j", f"1x{gpus or 2}", "--gpu", str(gpus)]


def scheduler() -> list[str]:
    """TorchX's for this machine; it would count GPUs from 0 whatever the user allows us."""
    kept = "CUDA_VISIBLE_DEVICES" in os.environ
    return ["-s", "local_cwd", *(["-cfg", "auto_set_cuda_visible_devices=False"] * kept)]


def _torchx(component: str, *flags: object) -> None:
    """Launch a command of ours through TorchX on this machine, one thread a rank."""
    command = [
        str(Path(sys.executable).with_name("torchx")),
        *("run", *scheduler(), component, *ranks_here(), "--"),
        *map(str, flags),
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


def _print_table(report: Path) -> None:
    rows = read_json(report)["rows"]
    print(f"\nSimulated market, {report}\n{'method':24}{'seed':>5}{'AUC':>9}{'GAUC':>9}")
    for row in rows:
        epochs = f", {row['epochs']} epochs" * ((row["epochs"] or 1) > 1)
        print(f"{row['method'] + epochs:24}{row['seed']:5}{row['auc']:9.4f}{row['gauc']:9.4f}")


if __name__ == "__main__":
    sys.exit(run(main))
