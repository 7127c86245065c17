"""The plain script: what it asks Slurm for, what it starts, and when it asks to start again."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT
from torchx_components import slurm

COMPONENT = f"{ROOT}/torchx_components/ranking.py:train_ranker"
HOSTILE = (
    "$(touch /x) `id` $$ $HOME \"q\" 's' \\ ; & | > < * ? # ! ~ {a,b}\nsecond line ${rank0_env}"
)


@pytest.fixture(autouse=True)
def _these_defaults(monkeypatch):
    """Those of the repository, whatever the user's own are."""
    monkeypatch.setenv("TORCHXCONFIG", str(ROOT / ".torchxconfig"))


def script_of(capsys, *arguments: str) -> str:
    assert slurm.main(["--dry-run", *arguments]) == 0
    return capsys.readouterr().out


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if "#SBATCH" in line]


class Stubs:
    """Slurm's commands for a script that runs here: srun writes down what it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command("srun", 'printf "%s\\0" "$@" > srun.log; env -0 > env.log; exit "$STATUS"')
        self.command("scontrol", '[ "$1" = show ] && printf "n7\\nn8\\n" || echo "$@" >> asked.log')

    def command(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run(self, script: str, status: int = 0, restarts: int = 0) -> int:
        job = {"SLURM_JOB_ID": "15003", "SLURM_JOB_NODELIST": "n[7-8]", "STATUS": str(status)}
        job["PATH"] = f"{self.folder}{os.pathsep}{os.environ['PATH']}"
        if restarts:
            job["SLURM_RESTART_COUNT"] = str(restarts)
        done = subprocess.run(["bash"], input=script, text=True, cwd=self.folder, env=job)
        return done.returncode

    def words(self) -> list[str]:
        return (self.folder / "srun.log").read_text().split("\0")[:-1]

    def environment(self) -> dict[str, str]:
        lines = (self.folder / "env.log").read_text().split("\0")[:-1]
        return dict(line.split("=", 1) for line in lines)

    def asked(self) -> str:
        path = self.folder / "asked.log"
        return path.read_text() if path.exists() else ""


def test_nodes_are_asked_for_whole_and_as_the_component_says(capsys):
    options = [
        "--partition",
        "gpu",
        "--time",
        "1-00:00:00",
        "--account",
        "ads",
        "--output",
        "%j.log",
    ]
    sizes = ["-j", "2x8", "--cpu", "16", "--gpu", "8", "--memMB", "64000"]
    assert directives(script_of(capsys, *options, COMPONENT, *sizes)) == [
        "--job-name=train_ranker",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=16",
        "--mem=64000M",
        "--gpus-per-node=8",
        "--signal=B:USR1@120",
        "--requeue",
        "--open-mode=append",
        "--partition=gpu",
        "--time=1-00:00:00",
        "--account=ads",
        "--output=%j.log",
    ]


def test_what_is_not_given_is_left_to_the_cluster(capsys):
    asked = directives(script_of(capsys, COMPONENT, "-j", "1:2x1"))
    assert "--nodes=1-2" in asked and "--output=slurm-%j.out" in asked
    assert not [each for each in asked if each.startswith(("--gpus", "--partition", "--time"))]


def test_torchxconfig_gives_what_the_flags_do_not(capsys, tmp_path, monkeypatch):
    defaults = tmp_path / "defaults"
    defaults.write_text("[slurm]\npartition = gpu\ntime = 60\njob_dir = elsewhere\n")
    monkeypatch.setenv("TORCHXCONFIG", str(defaults))
    asked = directives(script_of(capsys, "--time", "90", COMPONENT))
    assert {"--partition=gpu", "--time=90"} <= set(asked)
    assert not [each for each in asked if "job_dir" in each]


def test_each_node_runs_the_command_of_the_component_and_meets_at_the_first(capsys, tmp_path):
    stubs = Stubs(tmp_path)
    arguments = ["-j", "2x8", "--cpu", "16", "--env", "A=b c"]
    flags = ["--run_dir", "runs/${app_id}", "--method", "id"]
    assert stubs.run(script_of(capsys, COMPONENT, *arguments, "--", *flags)) == 0
    srun, torchrun = stubs.words()[:4], stubs.words()[4:]
    assert srun == ["--label", "--wait=60", "--kill-on-bad-exit=1", "--cpus-per-task=16"]
    assert torchrun == [
        *("torchrun", "--rdzv_backend", "c10d", "--rdzv_endpoint", "n7:15030"),
        *("--rdzv_id", "15003", "--nnodes", "2", "--nproc_per_node", "8", "--tee", "3"),
        *("--role", "", "-m", "apps.train_ranker", "--resume", "true"),
        *("--run_dir", "runs/15003", "--method", "id"),
    ]
    wanted = {"A": "b c", "PET_MAX_RESTARTS": "3", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    assert stubs.environment().items() >= wanted.items()


def test_values_reach_the_app_and_the_environment_as_they_were_given(capsys, tmp_path):
    stubs = Stubs(tmp_path)
    words = ("-j", "2x1", "--env", "A=$(id) 's' $$", "--", "--data", HOSTILE)
    script = script_of(capsys, COMPONENT, *words)
    assert stubs.run(script) == 0
    assert stubs.words()[-2:] == ["--data", HOSTILE]
    assert stubs.environment()["A"] == "$(id) 's' $$"


@pytest.mark.parametrize(
    ("status", "restarts", "retries", "again"),
    [(0, 0, 3, False), (1, 0, 0, False), (1, 0, 1, True), (1, 1, 1, False), (143, 1, 2, True)],
)
def test_a_failure_is_tried_again_while_retries_are_left(
    status, restarts, retries, again, capsys, tmp_path
):
    stubs = Stubs(tmp_path)
    script = script_of(capsys, COMPONENT, "--max_retries", str(retries))
    assert stubs.run(script, status, restarts) == status
    assert stubs.asked() == ("requeue 15003\n" if again else "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "component must be given"),
        (["torchx_components/nothing.py:train"], "nothing.py does not exist"),
        ([COMPONENT.replace("train_ranker", "nothing")], "nothing does not exist"),
        ([COMPONENT, "-j", "two"], "Given: two"),
        ([COMPONENT, "--env", "A B=c"], "env must name variables"),
        (["--partition", "a\n#SBATCH --uid=0", COMPONENT], "partition must be one line"),
    ],
)
def test_what_cannot_be_launched_is_refused_with_status_2(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as left:
        slurm.main(["--dry-run", *arguments])
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err


def test_without_sbatch_it_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as left:
        slurm.main([COMPONENT])
    assert left.value.code == 2
    assert "sbatch must be on the PATH" in capsys.readouterr().err
