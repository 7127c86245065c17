"""Jobs side by side: what each is given, what is not done twice, what ends them all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.forks import wait_until
from tests.helpers.runs import ROOT
from torchrec_mm import gpus
from torchrec_mm.stages import jobs
from torchrec_mm.stages.jobs import Job, JobPool, run_side_by_side

# Made-up commands. meet: waits for as many others as there are processes, so each has one job.
MEET = """
import os, time
import torch
def main(argv):
    folder, name, others = argv
    said = f"{os.environ['CUDA_VISIBLE_DEVICES']} {torch.get_num_threads()}"
    open(os.path.join(folder, name + ".new"), "w").write(said)
    os.rename(os.path.join(folder, name + ".new"), os.path.join(folder, name))
    deadline = time.monotonic() + 60
    while sum(not name.endswith(".new") for name in os.listdir(folder)) < int(others):
        assert time.monotonic() < deadline
        time.sleep(0.01)
"""
SAY = """
import os
def main(argv):
    open(argv[0], "a").write(f"{os.getpid()} ")
"""
WAIT = """
import os, time
def main(argv):
    open(argv[0] + ".new", "w").write(str(os.getpid()))
    os.rename(argv[0] + ".new", argv[0])
    while True:
        time.sleep(1)
"""
FAIL = "def main(argv):\n    raise ValueError('of this job')\n"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """The only ones that a new process finds."""
    folder = tmp_path / "path" / "apps"
    folder.mkdir(parents=True)
    for name, text in (("__init__", ""), ("meet", MEET), ("say", SAY), ("fail", FAIL)):
        (folder / f"{name}.py").write_text(text)
    (folder / "wait.py").write_text(WAIT)
    monkeypatch.syspath_prepend(folder.parent)


@pytest.mark.slow
@pytest.mark.parametrize(("seen", "given"), [(["5", "3"], ["3", "5", "5"]), ([], ["all"])])
def test_each_process_has_a_gpu_of_its_own_while_there_are_some(
    commands, tmp_path, monkeypatch, seen, given
):
    monkeypatch.setattr(gpus, "in_sight", lambda: seen)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all")
    met, total = tmp_path / "met", len(given)
    met.mkdir()
    each = [Job((("meet", (str(met), str(number), str(total))),), None) for number in range(total)]
    run_side_by_side(each, processes=total, threads=2)
    assert sorted(file.read_text() for file in met.iterdir()) == [f"{gpu} 2" for gpu in given]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "all"


def test_a_process_of_a_pool_stays_from_one_run_to_the_next(commands, tmp_path):
    said = Job((("say", (str(tmp_path / "said"),)),), None)
    with JobPool(1) as pool:
        pool.run([said, said])
        pool.run([said])
    first, *others = (tmp_path / "said").read_text().split()
    assert others == [first, first]
    assert int(first) != os.getpid()


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [[], ["json"]], ids=["spawned", "from the fork server"])
def test_a_job_ends_where_what_began_it_is_killed(commands, tmp_path, loaded):
    pid = tmp_path / "pid"
    job = f"Job((('wait', ({str(pid)!r},)),), None)"
    program = tmp_path / "pool.py"
    program.write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path / 'path')!r})\n"
        "from torchrec_mm.stages.jobs import Job, JobPool\n"
        f"if __name__ == '__main__':\n    with JobPool(1, loaded={loaded}) as pool:\n"
        f"        pool.run([{job}])\n"
    )
    started = subprocess.Popen(
        [sys.executable, program], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    wait_until(lambda: pid.exists() or started.poll() is not None)
    assert started.poll() is None
    started.kill()
    started.wait()
    wait_until(lambda: not is_running(int(pid.read_text())))


def is_running(pid: int) -> bool:
    """False for one that ended, also where nobody has asked for its status."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except OSError:
        return False
    return state[0] != "Z"


def test_what_fails_ends_all(commands):
    with pytest.raises(ValueError, match="of this job"):
        run_side_by_side([Job((("fail", ()),), None)], processes=1)


def test_a_job_whose_result_is_there_is_not_done_again(monkeypatch, tmp_path):
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(jobs, "call", lambda *words: called.append(words))
    result = tmp_path / "metrics.json"
    job = Job((("train_ranker", ("--seed", "1")), ("evaluate", ())), result)
    job.run()
    result.touch()
    job.run()
    assert called == [("train_ranker", "--seed", "1"), ("evaluate",)]
    Job((("train_make", ()),), None).run()
    assert called[2:] == [("train_make",)]
