"""Train two tables three steps under each sharding; every rank runs this, the first one saves.

As a module of its own: ``python -m tests.parallel.sharded_tables OUT.pt``, two ranks that take
themselves for two machines.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.parallel.sharding import (
    DistributedModel,
    OptimizerSettings,
    TableOptions,
    distribute,
)
from torchrec_mm.parallel.tables import OPTIMIZERS, SHARDINGS, SPLIT_COLUMNS, TableSettings
from torchrec_mm.ranking.ranker import build_tables

ROWS = {"a": 40, "b": 30}
WIDTH = 8
LEARNING_RATE = 0.1
SEED = 3
STEPS = 3
BATCH = 8


class TwoTables(nn.Module):
    """The square of a linear map of both embeddings, summed over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = build_tables(ROWS, WIDTH)
        self.weight = nn.Parameter(torch.linspace(-1, 1, 2 * WIDTH))

    def forward(self, bags: KeyedJaggedTensor) -> Tensor:
        found = self.tables(bags)
        return (torch.cat([found["a"], found["b"]], dim=1) @ self.weight).square().sum()


def ids_of(step: int) -> Tensor:
    """(2, BATCH) ids, repetitions among them."""
    generator = torch.Generator().manual_seed(step)
    return torch.randint(0, min(ROWS.values()), (2, BATCH), generator=generator)


def train(worker: Worker, settings: TableSettings) -> DistributedModel:
    """Each rank takes its share of each batch."""
    options = TableOptions({"a": settings, "b": settings})
    optimizers = OptimizerSettings(
        learning_rate=0.0, weight_decay=0.0, table_learning_rate=LEARNING_RATE, table_scale=0.5
    )
    distributed = distribute(TwoTables(), worker, optimizers, SEED, options)
    share = BATCH // worker.world_size
    for step in range(STEPS):
        mine = ids_of(step)[:, worker.rank * share : (worker.rank + 1) * share]
        bags = KeyedJaggedTensor(
            keys=["a", "b"],
            values=mine.flatten(),
            lengths=torch.ones(mine.numel(), dtype=torch.int32),
        )
        # TorchRec divides gradients of tables by the number of ranks
        (distributed.model(bags) * worker.world_size).backward()
    return distributed


def whole_tables(distributed: DistributedModel) -> dict[str, Tensor]:
    """Every table, put together from all ranks' shards."""
    tables = {}
    for name, weight in distributed.model.state_dict().items():
        if ".embedding_bags." in name:
            whole = torch.zeros(weight.size(), dtype=torch.float64)
            for shard in weight.local_shards():
                row, column = shard.metadata.shard_offsets
                rows, columns = shard.tensor.shape
                whole[row : row + rows, column : column + columns] = shard.tensor.double()
            dist.all_reduce(whole)
            tables[name.split(".")[-2]] = whole
    return tables


def combinations() -> list[TableSettings]:
    """Of sharding, optimizer and dtype, as many as the CPU has."""
    return [
        TableSettings(sharding=sharding, optimizer=optimizer, dtype=dtype)
        for sharding in SHARDINGS
        for optimizer in OPTIMIZERS
        if optimizer != "adam"
        and not (sharding in SPLIT_COLUMNS and optimizer == "rowwise_adagrad")
        for dtype in ("fp32", "fp16")
    ]


def name_of(settings: TableSettings) -> str:
    return f"{settings.sharding} {settings.optimizer} {settings.dtype}"


def main(out: Path) -> None:
    """One rank's part."""
    os.environ |= {"LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    found = {}
    with suppress_library_warnings(), process_group() as worker:
        for settings in combinations():
            distributed = train(worker, settings)
            shards = {f"shards {t.name}": torch.tensor(len(t.shards)) for t in distributed.planned}
            found[name_of(settings)] = whole_tables(distributed) | shards
        if worker.is_first:
            torch.save(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
