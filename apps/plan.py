"""How the tables would be sharded over devices that need not be here, and whether they fit.

python -m apps.plan --rows '{item_id: 243000000}' --embedding_dim 64 --device h100 --world_size 16
python -m apps.plan --train runs/id/config.yaml --device cpu --world_size 2 --json
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import nn

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.contract.feature_names import table_name
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.documents import read_json
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.capacity import (
    RankMemory,
    Workload,
    bytes_of_node,
    changes_that_fit,
    memory_of_ranks,
)
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.memory import BATCH_IDS
from torchrec_mm.parallel.plan_files import PlannedTable, plan_to_json
from torchrec_mm.parallel.plan_text import host_text, memory_text, plan_text, tightest, vectors_text
from torchrec_mm.parallel.planning import DoesNotFit
from torchrec_mm.parallel.sharding import TableOptions, settings_of_tables
from torchrec_mm.parallel.tables import read_tables
from torchrec_mm.parallel.topology import DEVICES, GIB, Machines, host_bytes_here
from torchrec_mm.ranking.ranker import Ranker, build_one_id_tables, build_tables
from torchrec_mm.ranking.spec import RankerSpec, spec_from_json

from .train_ranker import TrainRankerConfig

HOST_GIB_A_GPU = 128.0


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Print the sharding plan, the memory of each rank by table and part, and the tightest rank.

    Leaves with status 2 and one line that says what would help, when no plan fits.
    """

    train: Path | None = None
    """YAML config of apps.train_ranker, in a run folder or with an encoded data folder in it."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows of each table by feature, where no config is given."""
    embedding_dim: int = 16
    """Width of each table of rows; a config brings its own."""
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings by table, as in the config: {item_id: {sharding: row_wise, dtype: fp16}}."""
    plan: Path | None = None
    """A plan.json whose sharding and kernels to keep."""
    device: Literal["cpu", "a100", "a100-40gb", "b200", "h100", "h200", "l4", "l40s"] = "h100"
    """Kind of device; it need not be here."""
    world_size: int = 1
    """Number of ranks, one a device."""
    devices_per_node: int | None = None
    """Ranks that share a host; 8, or all of fewer."""
    device_memory_gib: float | None = None
    """Memory of a GPU, where it is not what the kind usually has."""
    host_memory_gib: float | None = None
    """Memory of a node; 128 GiB a GPU, or this machine's for the CPU."""
    batch_ids: int = BATCH_IDS
    """Distinct ids of a table in a rank's step, for the buffers."""
    dense_parameters: int = 0
    """Trained weights outside the tables, where they are not in the run folder."""
    vectors_rows: int = 0
    """Item vectors, memory-mapped on each host."""
    vectors_width: int = 128
    """Width of an int8 item vector."""
    json: bool = False
    """Print one JSON object instead."""

    def __post_init__(self) -> None:
        if (self.train is None) == (not self.rows):
            raise InputError("train or rows must be given, and not both")
        check_fields(self, lambda x: x >= 1, "at least 1", "world_size", "batch_ids")
        check_fields(self, lambda x: x >= 1, "at least 1", "vectors_width")
        check_fields(self, lambda x: x >= 0, "at least 0", "dense_parameters", "vectors_rows")
        check_fields(self, lambda x: x > 0 and x % 4 == 0, "a multiple of 4", "embedding_dim")
        given = ("devices_per_node", "device_memory_gib", "host_memory_gib")
        check_fields(self, lambda x: x is None or x > 0, "above 0", *given)
        tables: dict[str, str] = {}
        for feature, rows in self.rows.items():
            if rows < 1:
                raise InputError(f"rows.{feature} must be at least 1, got {rows}")
            table = table_name(feature)
            if tables.setdefault(table, feature) != feature:
                rule = f"rows.{feature} must not be named like rows.{tables[table]}"
                raise InputError(f"{rule}, as both tables would be {table}")
        read_tables(self.tables)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    config = parse(PlanConfig, argv)
    machines = machines_of(config)
    with suppress_library_warnings():
        workload = workload_of(config)
        try:
            planned = workload.plan(machines)
        except DoesNotFit as error:
            helps = list(changes_that_fit(workload, machines)) or ["no single change we know"]
            reason = str(error).partition(": python")[0]
            raise InputError(f"{reason}; fits with {', or with '.join(helps)}") from error
        ranks = memory_of_ranks(workload, machines, planned)
    if config.json:
        print(json.dumps(as_json(config, machines, planned, ranks)))
    else:
        print(plan_text(planned))
        print(memory_text(ranks))
        print(host_text(ranks, machines))
        if config.vectors_rows:
            print(vectors_text(config.vectors_rows * config.vectors_width, machines))


def machines_of(config: PlanConfig) -> Machines:
    """What ``device`` and its neighbours say."""
    per_node = config.devices_per_node or min(8, config.world_size)
    on_gpu = config.device != "cpu"
    device_gib = config.device_memory_gib or DEVICES.get(config.device, 0.0)
    host_gib = HOST_GIB_A_GPU * per_node if on_gpu else host_bytes_here() / GIB
    return Machines(
        device="cuda" if on_gpu else "cpu",
        world_size=config.world_size,
        devices_per_node=per_node,
        device_bytes=int(device_gib * GIB) if on_gpu else 0,
        host_bytes=int((config.host_memory_gib or host_gib) * GIB),
    )


def workload_of(config: PlanConfig) -> Workload:
    """The tables and the dense part of ``train``, or of ``rows``."""
    lengths: Mapping[str, float] = {}
    raw: Mapping[str, Any] = config.tables
    build: Callable[[], nn.Module] = partial(tables_of_rows, config)
    if config.train:
        trained = parse(TrainRankerConfig, ["--config", str(config.train)])
        raw = {**trained.tables, **config.tables}
        spec = spec_of(config.train.parent, trained)
        build, lengths = partial(Ranker, spec), spec.mean_lengths
    options = TableOptions(read_tables(raw), plan=config.plan, mean_lengths=lengths)
    tables = settings_of_tables(build(), options)
    return Workload(
        build=build, tables=tables, batch_ids=config.batch_ids, more_dense=config.dense_parameters
    )


def tables_of_rows(config: PlanConfig) -> nn.Module:
    """Tables of ``rows``, those of bags that are said to have a mean length."""
    settings = read_tables(config.tables)
    said = {name for name, of in settings.items() if of.mean_length is not None}
    bags = {name for name in config.rows if {name, table_name(name)} & said}
    of_bags = {name: rows for name, rows in config.rows.items() if name in bags}
    of_one = {name: rows for name, rows in config.rows.items() if name not in bags}
    built = nn.ModuleDict()
    if of_one:
        built["ids"] = build_one_id_tables(of_one, config.embedding_dim)
    if of_bags:
        built["bags"] = build_tables(of_bags, config.embedding_dim)
    return built


def spec_of(folder: Path, trained: TrainRankerConfig) -> RankerSpec:
    """Of the ranker of a run folder, or of the one that the config's encoded data call for."""
    if trained.method == "bias":
        raise InputError("train must be the config of a method with tables, got bias")
    if (folder / "model.json").is_file():
        model = read_json(folder / "model.json")
        return spec_from_json(model["spec"])
    if trained.encoded is None:
        rule = "train must lie in a run folder or name encoded data"
        raise InputError(f"{rule}: no {folder / 'model.json'} and no encoded")
    vectors = ItemVectors.open(trained.vectors) if trained.vectors else None
    return trained.spec(EncodedRequests(trained.encoded, "train"), vectors)


def as_json(
    config: PlanConfig, machines: Machines, planned: list[PlannedTable], ranks: list[RankMemory]
) -> dict[str, Any]:
    """The plan as in plan.json, and bytes of every rank."""
    return plan_to_json(planned, machines.world_size) | {
        "machines": vars(machines),
        "ranks": [
            {
                **vars(rank),
                "tables": {name: vars(memory) for name, memory in rank.tables.items()},
                "used": rank.used,
                "host": rank.host,
            }
            for rank in ranks
        ],
        "tightest_rank": tightest(ranks).rank,
        "host_bytes_a_node": bytes_of_node(ranks, machines),
        "vectors_bytes_a_node": config.vectors_rows * config.vectors_width,
    }


if __name__ == "__main__":
    sys.exit(run(main))
