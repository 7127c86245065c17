"""What `torchx run --dryrun` makes of a component under each scheduler, none of them at hand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.helpers.runs import ROOT

COMPONENT = "torchx_components/ranking.py:evaluate"
IMAGE = "registry.example/torchrec_mm:1"
TWO_NODES = ["-j", "2x2", "--cpu", "8", "--gpu", "2", "--memMB", "16000", "--image", IMAGE]
FLAGS = ["--", "--run_dir", "runs/id"]


def dry_run(scheduler: str, *options: str, commands: Path | None = None) -> str:
    """What is printed in the repository's folder, with its .torchxconfig and no other.

    Args:
        commands: a folder of commands that come before those of this machine.
    """
    path = [commands] if commands else []
    path += [Path(sys.executable).parent, os.environ["PATH"]]
    done = subprocess.run(
        ["torchx", "run", "--dryrun", "-s", scheduler, *options, COMPONENT, *TWO_NODES, *FLAGS],
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join(map(str, path)), "HOME": "/nowhere"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "is not a runopt" not in done.stderr
    return done.stdout.partition("=== SCHEDULER REQUEST ===")[2]


def test_slurm_gets_a_script_with_a_part_for_each_node():
    script = dry_run("slurm")
    assert script.count("--cpus-per-task=8 --mem=16000 --gpus-per-task=2") == 2
    assert script.count("apps.evaluate --run_dir runs/id") == 2
    assert "--partition" not in script


def test_kubernetes_gets_a_job_of_two_pods_in_the_queue_of_torchxconfig():
    request = yaml.safe_load(dry_run("kubernetes", "--workspace", ""))
    assert request["spec"]["queue"] == "default"
    pods = [task["template"]["spec"]["containers"][0] for task in request["spec"]["tasks"]]
    assert [pod["name"] for pod in pods] == ["evaluate-0", "evaluate-1"]
    for pod in pods:
        assert pod["image"] == IMAGE
        assert "apps.evaluate --run_dir runs/id" in pod["command"][-1]


def test_local_docker_gets_two_containers_without_a_daemon():
    request = dry_run("local_docker", "--workspace", "")
    assert request.count(f"image: {IMAGE}") == 2
    assert "apps.evaluate --run_dir runs/id" in request


def test_local_cwd_gives_each_node_devices_of_its_own(tmp_path):
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\nfor gpu in 0 1 2 3; do echo GPU $gpu; done\n")
    listing.chmod(0o755)
    request = dry_run("local_cwd", commands=tmp_path)
    assert re.findall(r"'CUDA_VISIBLE_DEVICES': '(.*)'", request) == ["0,1", "2,3"]
