"""A sharding plan as plain data: printed, saved beside the checkpoint, given back to a later run.

plan.json: {"format": 1, "world_size": W, "tables": [{"table", "rows", "width", "sharding",
"kernel", "dtype", "optimizer", "shards": [{"rank", "rows", "columns", "row_offset",
"column_offset", "bytes"}]}]}; ``bytes`` are of weights and optimizer state. A table of bags has
"mean_length", ids of a bag.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torchrec.distributed.types import ShardingPlan

from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.parallel.memory import BATCH_IDS, ShardMemory, shard_memory
from torchrec_mm.parallel.planning import table_configs
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.parallel.zero_collision import tables_of_raw_ids

FORMAT = 1
PLAN_FILE = "plan.json"


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A block of a table, and the rank that owns it."""

    rank: int
    rows: int
    columns: int
    row_offset: int
    column_offset: int


@dataclass(frozen=True, kw_only=True)
class PlannedTable:
    """A table and its shards. settings: what was asked. sharding, kernel: what was planned.

    takes_raw_ids: whether its rows have owners, in memory that counts as the optimizer's.
    """

    name: str
    rows: int
    width: int
    sharding: str
    kernel: str
    settings: TableSettings
    shards: tuple[PlannedShard, ...]
    takes_raw_ids: bool = False

    def memory(self, shard: PlannedShard, world_size: int, batch_ids: int) -> ShardMemory:
        """Bytes of one of its shards; ``batch_ids`` is of one rank."""
        return shard_memory(
            rows=shard.rows,
            columns=shard.columns,
            table_rows=self.rows,
            settings=self.settings,
            kernel=self.kernel,
            global_ids=batch_ids * world_size,
            takes_raw_ids=self.takes_raw_ids,
        )


def planned_tables(
    model: nn.Module, plan: ShardingPlan, tables: Mapping[str, TableSettings]
) -> list[PlannedTable]:
    """Each table's plan, in the order of the unsharded ``model``; ``tables``: settings of each."""
    raw_id_tables = tables_of_raw_ids(model)
    of_table = {name: found for module in plan.plan.values() for name, found in module.items()}
    return [
        PlannedTable(
            name=config.name,
            rows=config.num_embeddings,
            width=config.embedding_dim,
            sharding=of_table[config.name].sharding_type,
            kernel=of_table[config.name].compute_kernel,
            settings=tables[config.name],
            shards=tuple(
                PlannedShard(
                    rank=shard.placement.rank(),
                    rows=rows,
                    columns=columns,
                    row_offset=shard.shard_offsets[0],
                    column_offset=shard.shard_offsets[1],
                )
                for shard in of_table[config.name].sharding_spec.shards
                for rows, columns in [shard.shard_sizes]
            ),
            takes_raw_ids=config.name in raw_id_tables,
        )
        for config in table_configs(model)
    ]


def plan_to_json(planned: list[PlannedTable], world_size: int) -> dict[str, Any]:
    """What plan.json holds."""
    return {
        "format": FORMAT,
        "world_size": world_size,
        "tables": [
            {
                "table": table.name,
                "rows": table.rows,
                "width": table.width,
                "sharding": table.sharding,
                "kernel": table.kernel,
                "dtype": table.settings.dtype,
                "optimizer": table.settings.optimizer,
                **_of_bags(table.settings),
                "shards": [
                    {**vars(shard), "bytes": memory.weights + memory.optimizer}
                    for shard in table.shards
                    for memory in [table.memory(shard, world_size, BATCH_IDS)]
                ],
            }
            for table in planned
        ],
    }


def _of_bags(settings: TableSettings) -> dict[str, float]:
    length = settings.mean_length
    return {} if length is None else {"mean_length": length}


def save_plan(folder: Path, planned: list[PlannedTable], world_size: int) -> None:
    """Write plan.json into a run folder, whole or not at all."""
    write_json(folder / PLAN_FILE, plan_to_json(planned, world_size))


def read_plan(path: Path) -> dict[str, TableSettings]:
    """Sharding and kernel of each table of a plan.json; InputError for what no config may ask."""
    if not path.is_file():
        raise InputError(f"plan must be a file, got {path}")
    raw = read_json(path)
    try:
        if raw["format"] != FORMAT:
            raise InputError(f"{path} must have format {FORMAT}, got {raw['format']}")
        kernels = {table["table"]: table for table in raw["tables"]}
        return {
            name: TableSettings(
                sharding=table["sharding"], kernel=table["kernel"], optimizer=table["optimizer"]
            )
            for name, table in kernels.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} must be a plan.json, got {error!r}") from error
