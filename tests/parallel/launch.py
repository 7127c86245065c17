"""Check functions on two ranks, all of them in one launch.

As a module of its own it is what each rank runs: ``python -m tests.parallel.launch MODULE FOLDER``.
"""

import importlib
import sys
from pathlib import Path

from tests.helpers import forks


def on_two_ranks(module: str, folder: Path) -> None:
    """Call ``module.on_each_rank(worker, folder)`` in a group of two; an exception ends both."""
    forks.run_on_two_ranks("-m", __name__, module, folder)


def main(module: str, folder: str) -> None:
    """One rank's part."""
    from torchrec_mm.parallel.process_group import process_group

    with process_group() as worker:
        importlib.import_module(module).on_each_rank(worker, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
