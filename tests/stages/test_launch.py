"""Stages run, skipped, failed and stopped; the commands are made up."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers.forks import wait_until
from torchrec_mm.stages.launch import Launch, run_stage
from torchrec_mm.stages.stage import Stage


def stage_of(run_dir: Path, **more) -> Stage:
    folder = run_dir / "bake-0123"
    flags = {"dough": Path("dough"), "minutes": 30, "hot": True}
    return Stage("bake", flags, "0123", folder, **more)


class Python(Launch):
    """Runs a few lines of Python instead of a command of ours."""

    def command(self, stage: Stage, number: int) -> list[str]:
        stage.folder.parent.mkdir(exist_ok=True)
        with (stage.folder.parent / "runs").open("a") as file:
            file.write("run\n")
        return [sys.executable, "-c", self.lines, str(stage.folder)]


def run(stage: Stage, lines: str = "") -> tuple[int, bool]:
    launch = Python()
    object.__setattr__(launch, "lines", f"import sys, pathlib\n{lines}")
    return run_stage(stage, launch, 0)


def runs(stage: Stage) -> int:
    file = stage.folder.parent / "runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_one_node_meets_itself_at_a_free_port(tmp_path):
    words = Launch(processes=2, max_restarts=5).command(stage_of(tmp_path), 3)
    assert words[:3] == [sys.executable, "-m", "torchrec_mm.stages.torchrun"]
    assert words[words.index("--rdzv-endpoint") + 1] == "localhost:0"
    assert words[words.index("--nproc-per-node") + 1] == "2"
    assert words[words.index("--max-restarts") + 1] == "5"
    app = ["-m", "apps.bake", "--dough", "dough", "--minutes", "30", "--hot", "true"]
    assert words[-8:] == app


def test_several_nodes_meet_at_a_port_of_each_stage(tmp_path):
    launch = Launch(nodes=2, processes=4, host="n0", port=29500)
    words = [launch.command(stage_of(tmp_path, alone=True), number) for number in (0, 3)]
    ends = [each[each.index("--rdzv-endpoint") + 1] for each in words]
    assert ends == ["n0:29500", "n0:29503"]
    assert words[0][words[0].index("--nnodes") + 1] == "2"
    assert words[0][words[0].index("--nproc-per-node") + 1] == "1"  # only the first rank works
    assert words[0][words[0].index("--rdzv-id") + 1] == "bake-0123"


def test_ranks_share_the_cores_of_their_node_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(9)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = [
        Launch(processes=processes).environment(stage_of(tmp_path)).get("OMP_NUM_THREADS")
        for processes in (1, 2, 4, 16)
    ]
    assert threads == [None, "4", "2", "1"]  # alone: PyTorch's own choice
    alone = Launch(processes=4).environment(stage_of(tmp_path, alone=True))
    assert "OMP_NUM_THREADS" not in alone
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert Launch(processes=4).environment(stage_of(tmp_path))["OMP_NUM_THREADS"] == "3"


def test_a_stage_runs_in_the_environment_of_its_launch(tmp_path, monkeypatch):
    stage = stage_of(tmp_path)
    monkeypatch.setattr(Python, "environment", lambda self, stage: {"SAID": "here"})
    lines = "import os; pathlib.Path(sys.argv[1]).mkdir(); sys.exit(os.environ['SAID'] != 'here')"
    assert run(stage, lines) == (0, False)


def test_a_stage_that_succeeded_is_noted_and_never_run_again(tmp_path):
    stage = stage_of(tmp_path / "run")
    assert run(stage) == (0, False)
    noted = json.loads((stage.folder / "stage.json").read_text())
    assert noted.pop("seconds") >= 0
    flags = {"dough": "dough", "minutes": 30, "hot": True}
    assert noted == {"app": "bake", "fingerprint": "0123", "flags": flags}
    assert run(stage) == (0, True)
    assert runs(stage) == 1


@pytest.mark.parametrize(
    ("lines", "status"), [("sys.exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_a_stage_that_failed_is_run_again(tmp_path, lines, status):
    stage = stage_of(tmp_path)
    begin = "pathlib.Path(sys.argv[1]).mkdir(exist_ok=True)\n"
    assert run(stage, begin + lines) == (status, False)
    assert stage.folder.exists() and not stage.is_whole
    assert run(stage) == (0, False)
    assert stage.is_whole and runs(stage) == 2


def test_a_folder_that_appears_in_one_move_is_whole_without_a_note(tmp_path):
    stage = stage_of(tmp_path, in_one_move=True)
    stage.folder.mkdir()
    assert run(stage) == (0, True)
    assert runs(stage) == 0 and stage.seconds() is None


def test_what_a_killed_command_had_not_moved_yet_is_removed(tmp_path):
    stage = stage_of(tmp_path, in_one_move=True)
    for name in (".bake-0123.x1x2x3x4", ".bake-9999.x1x2x3x4"):
        (tmp_path / name).mkdir()
    run(stage)
    assert not (tmp_path / ".bake-0123.x1x2x3x4").exists()
    assert (tmp_path / ".bake-9999.x1x2x3x4").exists()


def test_results_that_lie_elsewhere_are_copied(tmp_path):
    (tmp_path / "metrics.json").write_text("{}")
    stage = stage_of(tmp_path / "run", results=(tmp_path / "metrics.json",))
    run(stage)
    assert (stage.folder / "metrics.json").read_text() == "{}"


WAITING = """
import signal, time
def stop(*_):
    pathlib.Path(sys.argv[1]).with_name("stopped").touch()
    sys.exit({status})
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1]).with_name("waiting").touch()
time.sleep(60)
"""


def when_there(file: Path, act) -> threading.Thread:
    """Call ``act`` once the file is there."""

    def wait() -> None:
        wait_until(file.exists)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("status", [0, 143, 1])
def test_sigterm_is_passed_on_and_the_stage_waited_for(tmp_path, status):
    stage, before = stage_of(tmp_path), signal.getsignal(signal.SIGTERM)
    killer = when_there(tmp_path / "waiting", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(stage, WAITING.format(status=status)) == (143, False)
    killer.join()
    assert (tmp_path / "stopped").exists() and not stage.is_whole
    assert signal.getsignal(signal.SIGTERM) == before


def test_while_a_stage_runs_no_other_pipeline_works_in_its_folder(tmp_path):
    held = []

    def try_to_lock() -> None:
        held.append(not is_free(tmp_path / ".lock"))
        os.kill(os.getpid(), signal.SIGTERM)

    other = when_there(tmp_path / "waiting", try_to_lock)
    run(stage_of(tmp_path), WAITING.format(status=0))
    other.join()
    assert held == [True]


KILLED = """
import sys
from pathlib import Path
from torchrec_mm.stages.launch import Launch, run_stage
from torchrec_mm.stages.stage import Stage
class Sleep(Launch):
    def command(self, stage, number):
        mark = "open('pid', 'w').write(str(os.getpid())); os.rename('pid', 'child')"
        return [sys.executable, "-c", "import os, time; " + mark + "; time.sleep(60)"]
run_stage(Stage("bake", {}, "0123", Path("bake-0123").absolute()), Sleep(), 0)
"""


def is_free(lock: Path) -> bool:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.kill
def test_what_a_killed_pipeline_launched_keeps_others_out_until_it_ends(tmp_path):
    root = str(Path(__file__).parents[2])
    pipeline = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}
    )
    wait_until((tmp_path / "child").exists)
    child = int((tmp_path / "child").read_text())
    pipeline.kill()
    pipeline.wait()
    assert not is_free(tmp_path / ".lock")
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: is_free(tmp_path / ".lock"))
