"""The wheel: one top-level name, and commands that work beside a user's own apps/."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {
    "torchrec_mm": "torchrec_mm",
    "apps": "torchrec_mm/apps",
    "torchx_components": "torchrec_mm/torchx_components",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools writes beside what it builds."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for folder in (*HOMES, "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    offline = ("--no-deps", "--no-index", "--no-build-isolation")
    pip("wheel", *offline, "--wheel-dir", str(built), str(source))
    (file,) = built.iterdir()
    return file


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *words], check=True)


@pytest.fixture(scope="module")
def folder(wheel, tmp_path_factory) -> Path:
    """A user's folder, with a package apps of their own; ../venv holds the wheel."""
    home = tmp_path_factory.mktemp("home")
    venv.create(home / "venv")
    base = {"base": str(home / "venv"), "platbase": str(home / "venv")}
    ours = [path for path in sys.path if path.endswith("-packages")]
    packages = Path(sysconfig.get_path("purelib", vars=base))
    (packages / "dependencies.pth").write_text("\n".join(ours))
    python = str(home / "venv" / "bin" / "python")
    pip("--python", python, "install", "--no-deps", "--no-index", str(wheel))
    own = home / "project" / "apps"
    own.mkdir(parents=True)
    (own / "__init__.py").write_text("raise SystemExit('this is the user’s own')")
    return own.parent


def run(folder: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [folder.parent / "venv" / "bin" / program, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_wheel_holds_what_the_checkout_holds_under_one_name_and_no_tests(wheel):
    wanted = {
        f"{inside}/{file.relative_to(ROOT / home).as_posix()}"
        for home, inside in HOMES.items()
        for file in (ROOT / home).rglob("*")
        if file.is_file() and file.suffix not in (".pyc", ".md", ".webp")
    }
    endings = {".py", ".cpp", ".h", ".html", ".css", ".typed", ".yaml"}
    assert {Path(name).suffix for name in wanted} == endings
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_a_chain_of_commands_runs_beside_a_package_apps_of_the_users_own(folder):
    small = "--items 100 --users 40 --impressions 1500 --searches 20 --run_dir market"
    for line in (
        f"make_market {small}",
        "embed_items --data market --encoder random --run_dir vectors",
        "train_ranker --method simtier --data market --vectors vectors --run_dir run",
        "evaluate --run_dir run",
    ):
        done = run(folder, "torchrec-mm", *line.split())
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert 0 < json.loads((folder / "run" / "metrics.json").read_text())["auc"] < 1


def test_a_command_finds_those_that_it_starts(folder):
    for name in ("items", "requests/train", "requests/test"):
        (folder / "garbled" / name).mkdir(parents=True)
        (folder / "garbled" / name / "part.parquet").write_text("no Parquet")
    flags = ("--method", "id", "--data", "garbled", "--run_dir", "runs")
    done = run(folder, "torchrec-mm", "pipeline", *flags)
    assert done.returncode == 2, done.stderr  # encode's own, which torchrun started
    assert "encode ended with status 2" in done.stderr


def test_torchx_finds_the_components_and_still_its_own(folder):
    torchx = ("-c", "from torchx.cli.main import main; main()")
    listed = run(folder, "python", *torchx, "builtins").stdout.split()
    ours = {"pretraining.pretrain", "pretraining.embed_items", "pipeline.pipeline"}
    ours |= {f"ranking.{name}" for name in ("train_make", "train_ranker", "evaluate", "predict")}
    assert {name for name in listed if "torchrec_mm" in name} == {f"torchrec_mm.{n}" for n in ours}
    assert "dist.ddp" in listed
    component = ("torchrec_mm.ranking.train_ranker", "-j", "1x2", "--", "--method", "id")
    done = run(folder, "python", *torchx, "run", "--dryrun", "-s", "local_cwd", *component)
    assert "torchrec_mm.apps.train_ranker" in done.stdout, done.stderr
