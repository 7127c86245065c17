"""torchrun's exit status, and what it starts again. Ranks are small scripts without torch."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.helpers.forks import wait_until
from torchrec_mm.stages.torchrun import status_of


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        ([7], 7),
        ([-9], 137),
        ([1, 2], 2),  # the mistake is what the user can mend
        ([-15, 2], 2),
        ([143, 7], 7),  # told to stop because the other failed
        ([-15, -9], 137),
        ([143, -15], 143),
    ],
)
def test_of_several_ranks_the_one_that_says_why_gives_the_status(codes, status):
    failures = {rank: SimpleNamespace(exitcode=code) for rank, code in enumerate(codes)}
    assert status_of(failures) == status


RANK = """
import os, pathlib, signal, sys, time
folder, ends = pathlib.Path(sys.argv[1]), sys.argv[2:]
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
end = int(ends[min(attempt, len(ends) - 1)])
if end and os.environ["RANK"] == "0":
    time.sleep(60)  # torchrun ends it with the other
(folder / f"{ends[0]}-{os.environ['RANK']}-{attempt}").touch()
os.kill(os.getpid(), -end) if end < 0 else sys.exit(end)
"""

LAUNCHES = """
import json, sys
from torchrec_mm.stages.torchrun import main
rank, folder, launches = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
flags = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "1", rank, folder]
print(json.dumps([main([*flags, *ends]) for ends in launches]))
"""


def test_the_status_is_that_of_the_rank_that_failed_and_a_mistake_is_not_tried_again(tmp_path):
    (tmp_path / "rank.py").write_text(RANK)
    ends = [["2"], ["143"], ["7"], ["-9", "0"]]  # of each attempt in turn
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHES, tmp_path / "rank.py", tmp_path, json.dumps(ends)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "LOGLEVEL": "CRITICAL"},
    )
    assert json.loads(done.stdout) == [2, 143, 7, 0], done.stderr
    attempts = {end: len(list(tmp_path.glob(f"{end}-1-*"))) for (end, *_) in ends}
    assert attempts == {"2": 1, "143": 1, "7": 2, "-9": 2}
    assert "Traceback" not in done.stderr
    assert done.stderr.count("exitcode  : 7") == 1  # named, once it is not tried again


WAITING = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(*_):
    (folder / "stopped").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(folder / "waiting").touch()
time.sleep(120)
"""

PARENT = """
import subprocess, sys
launch = [sys.executable, "-m", "torchrec_mm.stages.torchrun", "--standalone"]
subprocess.run([*launch, *sys.argv[1:]])
"""


@pytest.mark.kill
def test_ranks_are_told_to_stop_when_what_launched_them_is_killed(tmp_path):
    (tmp_path / "rank.py").write_text(WAITING)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path / "rank.py", tmp_path])
    wait_until((tmp_path / "waiting").exists)
    parent.kill()
    parent.wait()
    wait_until((tmp_path / "stopped").exists)
