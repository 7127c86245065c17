"""Commands on two ranks, all of them in one launch: starting processes costs more than the work.

As a module of its own it is what a rank runs: ``python -m tests.helpers.two_ranks COMMANDS.json``.
"""

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

from tests.helpers import forks


@dataclass(frozen=True)
class Command:
    """An ``app`` of apps/ with its flags.

    sharding: of all tables, the planner's choice if empty. plan: where the first rank writes how
    each table was sharded, nowhere if empty. padded: how large batches may be, as usual if 0.
    unlike: whether ranks find other eigenvectors each, as on GPUs of several kinds. by_rows:
    whether single ids go through EmbeddingCollection, as on GPUs.
    """

    app: str
    flags: Sequence[str]
    sharding: str = ""
    plan: str = ""
    padded: int = 0
    unlike: bool = False
    by_rows: bool = False


def run_on_two_ranks(folder: Path, commands: Sequence[Command]) -> None:
    """Run the commands one after another; an exception in one ends them all."""
    listed = folder / "commands.json"
    listed.write_text(json.dumps([asdict(command) for command in commands]))
    forks.run_on_two_ranks("-m", __name__, listed, cwd=folder)


def main(listed: Path) -> None:
    """One rank's part: join once, then run every command in that group."""
    from tests.helpers.runs import small_batches
    from torchrec_mm.parallel.process_group import process_group

    with process_group() as worker:

        @contextmanager
        def joined_already() -> Iterator:
            yield worker

        for raw in json.loads(listed.read_text()):
            command = Command(**raw)
            app = importlib.import_module(f"apps.{command.app}")
            with (
                mock.patch.object(app, "process_group", joined_already),
                forced(command.sharding),
                small_batches(command.padded) if command.padded else nullcontext(),
                plan_written(app, command.plan if worker.is_first else ""),
                other_eigenvectors(worker.rank) if command.unlike else nullcontext(),
                ids_by_rows() if command.by_rows else nullcontext(),
            ):
                app.main(command.flags)


def forced(sharding: str):
    """For the block: no other sharding type is on offer."""
    from torchrec_mm.parallel.planning import RowWiseEverywhereSharder

    offer = RowWiseEverywhereSharder.sharding_types
    return mock.patch.object(
        RowWiseEverywhereSharder,
        "sharding_types",
        lambda self, device: [sharding] if sharding else offer(self, device),
    )


def ids_by_rows():
    """For the block: single ids are looked up as on GPUs."""
    from torchrec_mm.parallel import planning

    return mock.patch.object(planning, "sends_rows", lambda device: True)


def other_eigenvectors(rank: int):
    """For the block: each rank finds its own, the first one those that there are."""
    import torch

    eigh = torch.linalg.eigh

    def found(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        spread, vectors = eigh(matrix)
        return spread, vectors.roll(rank, dims=0)

    return mock.patch.object(torch.linalg, "eigh", found)


def plan_written(app, path: str):
    """For the block: the sharding type of each table is written to ``path``, if given."""
    if not path:
        return nullcontext()
    distribute = app.distribute

    def distribute_and_write(*args, **kwargs):
        distributed = distribute(*args, **kwargs)
        types = {
            table: sharding.sharding_type
            for tables in distributed.plan.plan.values()
            for table, sharding in tables.items()
        }
        Path(path).write_text(json.dumps(types))
        return distributed

    return mock.patch.object(app, "distribute", distribute_and_write)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
