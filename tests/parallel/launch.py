"""Check functions on two ranks, all of them in one launch.

As a module of its own it is what each rank runs: ``python -m tests.parallel.launch MODULE FOLDER``.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def on_two_ranks(module: str, folder: Path) -> None:
    """Call ``module.on_each_rank(worker, folder)`` in a group of two; an exception ends both."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    done = subprocess.run(
        [*LAUNCH, "-m", "tests.parallel.launch", module, str(folder)],
        env=environment,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-6000:]


def main(module: str, folder: str) -> None:
    """One rank's part."""
    from torchrec_mm.parallel.process_group import process_group

    with process_group() as worker:
        importlib.import_module(module).on_each_rank(worker, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
