"""apps.pipeline: what is checked before anything runs; one real run, killed and gone on with."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apps.pipeline import PipelineConfig, main, plan
from tests.helpers import forks
from tests.helpers.forks import PATIENCE_S, wait_until
from tests.helpers.small_market import write_small_market
from tests.helpers.whole_market import tiny_flags, write_whole_market
from torchrec_mm.config import flag_words, run

PHASE_ONE = ["pack", "pretrain", "embed_items"]
RANKING = ["encode", "train_ranker", "evaluate"]
WITH_MAKE = ["encode", "train_make", "train_ranker", "evaluate"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_whole_market(tmp_path_factory.mktemp("whole") / "data")


def stages_of(data: Path, **fields) -> dict:
    config = PipelineConfig(data=data, run_dir=Path("runs"), **fields)
    return {stage.app: stage for stage in plan(config)}


@pytest.mark.parametrize(
    ("method", "apps"),
    [
        *((method, RANKING) for method in ("bias", "id")),
        *((method, PHASE_ONE + RANKING) for method in ("vector", "simscore", "simtier", "muse")),
        *((method, PHASE_ONE + WITH_MAKE) for method in ("make", "simtier+make")),
    ],
)
def test_a_method_gets_the_stages_that_it_needs(data, method, apps):
    assert list(stages_of(data, method=method)) == apps


def test_vectors_made_elsewhere_take_the_place_of_phase_one(market):
    stages = stages_of(market.data, vectors=market.vectors)
    assert list(stages) == WITH_MAKE
    for app in ("train_make", "train_ranker", "evaluate"):
        assert stages[app].flags["vectors"] == market.vectors


def test_each_stage_reads_those_before_it(data):
    stages = stages_of(data, seed=7)
    folders = {app: stage.folder for app, stage in stages.items()}
    read = {
        "pack": {},
        "pretrain": {"packed": "pack"},
        "embed_items": {"encoder": "pretrain"},
        "encode": {},
        "train_make": {"vectors": "embed_items", "encoded": "encode"},
        "train_ranker": {"vectors": "embed_items", "encoded": "encode", "make": "train_make"},
        "evaluate": {"run_dir": "train_ranker", "encoded": "encode", "vectors": "embed_items"},
    }
    for app, names in read.items():
        wanted = {flag: folders[name] for flag, name in names.items()}
        assert stages[app].flags.items() >= wanted.items()
    for app in ("pretrain", "train_make", "train_ranker"):
        assert stages[app].flags.items() >= {"seed": 7, "resume": True}.items()
    assert stages["encode"].flags["min_count"] == 10  # which the ranker itself would encode with
    assert len({stage.folder for stage in stages.values()}) == 7


@pytest.mark.parametrize(
    ("changed", "apps"),
    [
        ({"nodes": 2, "processes": 4, "rdzv_endpoint": "n0:1", "max_restarts": 0}, []),
        ({"pretrain": {"log_every_steps": 3, "num_workers": 0}}, []),
        ({"train_ranker": {"keep_checkpoints": 3, "hang_timeout_s": 1}}, []),
        ({"evaluate": {"checkpoint": "best"}}, ["evaluate"]),
        ({"train_ranker": {"embedding_dim": 8}}, ["train_ranker", "evaluate"]),
        ({"method": "make"}, ["train_ranker", "evaluate"]),
        ({"train_make": {"width": 8}}, ["train_make", "train_ranker", "evaluate"]),
        ({"encode": {"min_count": 3}}, WITH_MAKE),
        ({"embed_items": {"dtype": "float32"}}, ["embed_items", *WITH_MAKE[1:]]),
        ({"pretrain": {"epochs": 3}}, [*PHASE_ONE[1:], *WITH_MAKE[1:]]),
        ({"seed": 1}, [*PHASE_ONE[1:], *WITH_MAKE[1:]]),
        ({"pretrain": {"modality": "text"}}, PHASE_ONE + WITH_MAKE[1:]),
    ],
)
def test_a_changed_flag_renames_the_stages_that_depend_on_it_alone(data, changed, apps):
    before, after = stages_of(data), stages_of(data, **changed)
    assert [app for app in before if after[app].folder != before[app].folder] == apps


@pytest.mark.parametrize(
    ("folder", "apps"),
    [
        ("searches", [*PHASE_ONE, *WITH_MAKE[1:]]),
        ("requests/test", WITH_MAKE),
        ("items", PHASE_ONE + WITH_MAKE),
    ],
)
def test_changed_data_renames_the_stages_that_read_it_and_those_after(tmp_path, data, folder, apps):
    before = stages_of(data)
    copy = tmp_path / "data"
    for file in data.rglob("*.parquet"):  # their times of change, too
        (copy / file.relative_to(data)).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, copy / file.relative_to(data))
    same = stages_of(copy)
    (copy / folder / "more.parquet").write_text("")
    after = stages_of(copy)
    assert [app for app in before if same[app].folder != before[app].folder] == []
    assert [app for app in before if after[app].folder != before[app].folder] == apps


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"train_ranker": {"embeding_dim": 8}}, "train_ranker: unknown flag: --embeding_dim 8"),
        ({"evaluate": {"batch_requests": 0}}, "evaluate: batch_requests must be at least 1, got 0"),
        (
            {"pack": {"modality": "smell"}},
            "pack: --modality must be one of auto, both, image, text",
        ),
        ({"pretrain": {"run_dir": "x"}}, "pretrain must not hold run_dir"),
        ({"train_ranker": {"min_count": 1}}, "train_ranker must not hold min_count"),
        ({"method": "id", "train_make": {"width": 8}}, "train_make must be left out"),
        ({"method": "id", "vectors": "x"}, "vectors must not be given with method id, got x"),
        ({"nodes": 0}, "nodes must be at least 1, got 0"),
        ({"rdzv_endpoint": "n0"}, "rdzv_endpoint must be host:port"),
        ({"encode": {"splits": ["train", "dev"]}}, "dev must be a folder of Parquet files"),
    ],
)
def test_the_users_mistakes_end_it_before_anything_runs(data, tmp_path, capfd, flags, problem):
    given = {"data": data, "run_dir": tmp_path / "run", **flags}
    assert run(main, flag_words(given)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and problem in line
    assert not (tmp_path / "run").exists()


def pipeline(flags: dict) -> subprocess.CompletedProcess[str]:
    """The command, on two ranks."""
    words = flag_words({"processes": 2, **flags})
    return forks.run([sys.executable, "-m", "apps.pipeline", *words])


def test_a_mistake_in_the_data_is_one_line_of_the_stage_that_found_it(tmp_path):
    data = write_small_market(tmp_path).data
    (data / "requests" / "test" / "bad.parquet").write_text("no Parquet")
    flags = {"data": data, "run_dir": tmp_path / "run", "method": "id"}
    done = pipeline(flags)
    assert done.returncode == 2
    said = done.stderr
    assert said.count("error: ") == 1 and "bad.parquet must be a readable Parquet file" in said
    assert "pipeline: encode ended with status 2" in said and "Traceback" not in said


def torchx(words: list[str]) -> subprocess.Popen:
    """The pipeline under TorchX on two local ranks."""
    beside = Path(sys.executable).parent
    return subprocess.Popen(
        [beside / "torchx", "run", "-s", "local_cwd", "torchx_components/pipeline.py:pipeline"]
        + ["-j", "1x2", "--", *words],
        env={**os.environ, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def notes_of(run_dir: Path) -> dict[str, int]:
    """When each stage was noted to be whole, by folder."""
    return {path.parent.name: path.stat().st_mtime_ns for path in run_dir.glob("*/stage.json")}


@pytest.mark.kill
def test_a_killed_pipeline_goes_on_and_a_changed_flag_makes_what_depends_on_it(data, tmp_path):
    run_dir = tmp_path / "run"
    flags = {"data": data, "run_dir": run_dir, **tiny_flags(tmp_path)}

    killed = torchx(flag_words(flags))
    wait_until(lambda: list(run_dir.glob("pretrain-*/config.yaml")), killed)
    killed.send_signal(signal.SIGTERM)
    killed.communicate(timeout=PATIENCE_S)
    packed = notes_of(run_dir)
    assert [name.split("-")[0] for name in packed] == ["pack"]

    done = pipeline(flags)
    first = notes_of(run_dir)
    stages = json.loads((run_dir / "pipeline.json").read_text())["stages"]
    assert list(stages) == PHASE_ONE + WITH_MAKE, done.stderr
    assert {stage["folder"] for stage in stages.values()} == first.keys()
    assert first.items() >= packed.items()
    metrics = run_dir / stages["evaluate"]["folder"] / "metrics.json"
    assert f"{metrics}: simtier+make, AUC " in done.stdout.splitlines()[-1]
    assert json.loads(metrics.read_text())["impressions"] == 100

    assert pipeline(flags).stdout.count("is there already") == 7
    flags["train_ranker"]["embedding_dim"] = 8
    assert pipeline(flags).returncode == 0
    second = notes_of(run_dir)
    assert second.items() >= first.items()
    made = {name.split("-")[0] for name in second.keys() - first.keys()}
    assert made == {"train_ranker", "evaluate"}
