"""The model of a run over all ranks where nothing learns: its tables as the run held them.

No optimizer has state here, so tables that just fit in training fit on fewer ranks.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import nn
from torchrec.distributed.types import ShardingPlan

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.planning import make_plan, prepare_tables
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharding import ShardedModel, TableOptions, settings_of_tables, shard
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.parallel.topology import Machines


def distribute_for_scoring(model: nn.Module, worker: Worker, tables: TableOptions) -> ShardedModel:
    """Shard the tables as a run held them, less what only learning needs. Collective.

    Args:
        model: as ``distribute`` takes it; its weights, tables too, are to come from a checkpoint.
        worker: this rank.
        tables: the run's. Sharding is kept where these ranks allow it, kernels on GPUs; nothing is
            sent in fewer bytes.

    Raises:
        InputError: tables that fit no plan, a GPU that fbgemm has no code for.
    """
    asked = settings_of_tables(model, tables)
    of_table = {name: scoring_settings(table, worker.device.type) for name, table in asked.items()}
    prepare_tables(model, of_table, learning_rate=0.0)
    return shard(model, worker, of_table, make_scoring_plan, learns=False)


def scoring_settings(settings: TableSettings, device: str) -> TableSettings:
    """The same table where nothing learns: sgd has no state, and a CPU's rows are in the host."""
    on_gpu = device == "cuda"
    return replace(
        settings,
        optimizer="sgd",
        learning_rate=None,
        kernel=settings.kernel if on_gpu else None,
        cache_load_factor=settings.cache_load_factor if on_gpu else None,
    )


def make_scoring_plan(
    model: nn.Module, tables: Mapping[str, TableSettings], machines: Machines
) -> ShardingPlan:
    """As ``make_plan``, without room for learning; as sharded as asked where that can be here.

    A run is scored on any ranks, of which its sharding may ask what only those of training had.
    """
    try:
        return make_plan(model, tables, machines, learns=False)
    except InputError:
        anyhow = {name: replace(settings, sharding=None) for name, settings in tables.items()}
        return make_plan(model, anyhow, machines, learns=False)
