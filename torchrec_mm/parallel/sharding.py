"""From a model for one device to a model over all ranks: plan, shard, optimise, pipeline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.train_pipeline import TrainPipelineBase, TrainPipelineSparseDist
from torchrec.distributed.types import QuantizedCommCodecs, ShardingEnv, ShardingPlan
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from torchrec_mm.data.stream.loader import COLLATING
from torchrec_mm.errors import HostError, InputError
from torchrec_mm.gpus import capability_problem
from torchrec_mm.parallel.communication import communication_codecs
from torchrec_mm.parallel.cpu.adamw import QuickAdamW
from torchrec_mm.parallel.cpu.exchange import Exchange
from torchrec_mm.parallel.cpu.forward import shorten
from torchrec_mm.parallel.cpu.links import Links, connect
from torchrec_mm.parallel.cpu.pipeline import CpuPipeline
from torchrec_mm.parallel.initialise import initialise_tables
from torchrec_mm.parallel.plan_files import PlannedTable, planned_tables, read_plan, save_plan
from torchrec_mm.parallel.planning import make_plan, prepare_tables, sharders, table_configs
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.tables import TableSettings, follow_plan, settings_by_table
from torchrec_mm.parallel.topology import Machines, machines_here

Planner = Callable[[nn.Module, Mapping[str, TableSettings], Machines], ShardingPlan]


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How the two halves of a model learn.

    learning_rate: Adam's, for the dense part. weight_decay: AdamW's, for the dense part.
    table_learning_rate: row-wise Adagrad's, for the tables. table_scale: their initial weights
    are uniform in [-table_scale, table_scale).
    """

    learning_rate: float
    weight_decay: float
    table_learning_rate: float = 0.0
    table_scale: float = 0.0


@dataclass(frozen=True)
class TableOptions:
    """What is asked of the tables; the planner decides the rest.

    tables: settings by the name of a table or of a feature. communication: of embeddings and
    their gradients between ranks, one of COMMUNICATIONS; fp16 sends gradients as bf16, anything
    but fp32 needs NCCL. plan: the plan.json of a run, whose sharding and kernels to keep.
    mean_lengths: values a bag by feature, for the planner.
    """

    tables: Mapping[str, TableSettings] = field(default_factory=dict)
    communication: str = "fp32"
    plan: Path | None = None
    mean_lengths: Mapping[str, float] = field(default_factory=dict)


class PlainPipeline(TrainPipelineBase):
    """For a model without tables: the sparse pipeline would trace all of it in search of one."""

    def detach(self) -> None:
        """Nothing was rewritten, so there is nothing to undo."""


class SparsePipeline(TrainPipelineSparseDist):
    """Traces the model, once an epoch, while no batch is being made."""

    def _pipeline_model(self, *args: Any, **kwargs: Any) -> None:
        with COLLATING:
            super()._pipeline_model(*args, **kwargs)


@dataclass(frozen=True)
class ShardedModel:
    """A model over all ranks: what scores.

    exchange: that look-ups go through on CPUs, if any. links: between ranks on CPUs.
    """

    model: DistributedModelParallel
    plan: ShardingPlan
    planned: tuple[PlannedTable, ...]
    worker: Worker
    exchange: Exchange | None
    links: Links | None


@dataclass(frozen=True)
class DistributedModel(ShardedModel):
    """A model over all ranks, with its optimizer: what the fit loop and checkpoints hold."""

    optimizer: CombinedOptimizer
    dense_optimizer: KeyedOptimizerWrapper

    def pipeline(self) -> SparsePipeline | PlainPipeline | CpuPipeline:
        """A fresh pipeline; never shared between training and evaluation, nor between epochs."""
        if self.worker.device.type == "cpu":
            groups = self.dense_optimizer.param_groups
            dense = [parameter for group in groups for parameter in group["params"]]
            optimizers = (self.optimizer, self.dense_optimizer)
            return CpuPipeline(self.model, *optimizers, dense, self.exchange, self.links)
        if not self.plan.plan:
            return PlainPipeline(self.model, self.optimizer, self.worker.device)
        return SparsePipeline(
            self.model, self.optimizer, self.worker.device, execute_all_batches=True
        )

    def create_optimizer_state(self) -> None:
        """Make room for Adam's state, for a checkpoint to fill; call it before that is loaded."""
        self.dense_optimizer.init_state()

    def set_step(self, step: int) -> None:
        """Tell the tables' Adam how many steps were done; call it when a checkpoint is loaded.

        Its bias correction counts them, and FBGEMM keeps that count out of its state.
        """
        self.optimizer.set_optimizer_step(step)

    def save_plan(self, folder: Path) -> None:
        """Write plan.json into a run folder."""
        if self.worker.is_first:
            save_plan(folder, list(self.planned), self.worker.world_size)


def distribute(
    model: nn.Module,
    worker: Worker,
    settings: OptimizerSettings,
    seed: int,
    tables: TableOptions = TableOptions(),
) -> DistributedModel:
    """Shard the tables of ``model``, replicate the rest, attach the optimizers. Collective.

    Args:
        model: its EmbeddingBagCollections on the meta device, the rest on the CPU with the same
            values on every rank.
        worker: this rank. settings: for the optimizers. seed: of the tables' initial weights.
        tables: what the planner may not decide by itself.

    Raises:
        InputError: a table that the model does not have, a setting that the device does not have,
            tables that fit no plan, a GPU that fbgemm has no code for.
    """
    codecs = communication_codecs(tables.communication)
    of_table = settings_of_tables(model, tables)
    prepare_tables(model, of_table, settings.table_learning_rate)
    sharded = shard(model, worker, of_table, make_plan, codecs)
    initialise_tables(sharded.model, scale=settings.table_scale, seed=seed)
    adamw = QuickAdamW if worker.device.type == "cpu" else torch.optim.AdamW
    learning = in_backward_optimizer_filter(sharded.model.named_parameters())
    dense = KeyedOptimizerWrapper(
        {name: parameter for name, parameter in learning if parameter.requires_grad},
        lambda parameters: adamw(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        ),
    )
    optimizer = CombinedOptimizer([sharded.model.fused_optimizer, dense])
    return DistributedModel(**vars(sharded), optimizer=optimizer, dense_optimizer=dense)


def settings_of_tables(model: nn.Module, options: TableOptions) -> dict[str, TableSettings]:
    """Each table's settings, an earlier plan's too; InputError for unknown ones, contradictions."""
    features_of = {config.name: config.feature_names for config in table_configs(model)}
    of_table = settings_by_table(options.tables, features_of)
    for table, features in features_of.items():
        lengths = [options.mean_lengths[n] for n in features if n in options.mean_lengths]
        if lengths and of_table[table].mean_length is None:
            of_table[table] = replace(of_table[table], mean_length=sum(lengths))
    return follow_plan(of_table, read_plan(options.plan)) if options.plan else of_table


def shard(
    model: nn.Module,
    worker: Worker,
    of_table: Mapping[str, TableSettings],
    planner: Planner,
    codecs: dict[str, QuantizedCommCodecs] | None = None,
    learns: bool = True,
) -> ShardedModel:
    """Plan prepared tables and place them, and the rest on every rank. Collective."""
    check_gpu(worker.device)
    plan = _collective_plan(planner, model, of_table, worker)
    planned = planned_tables(model, plan, of_table)
    on_cpu = worker.device.type == "cpu"
    # Averages gradients, with somebody; on CPUs the pipeline does, in one message.
    wrapped = learns and worker.world_size > 1 and not on_cpu
    sharded = DistributedModelParallel(
        model,
        env=ShardingEnv.from_process_group(dist.group.WORLD),
        device=worker.device,
        plan=plan,
        sharders=sharders(codecs),
        init_data_parallel=wrapped,
    )
    if not wrapped:
        sharded.module.to(worker.device)
    links = connect(worker) if on_cpu and worker.world_size > 1 else None
    exchange = shorten(sharded, of_table, worker, learns, links) if on_cpu else None
    return ShardedModel(sharded, plan, tuple(planned), worker, exchange, links)


def check_gpu(device: torch.device) -> None:
    """HostError, naming its compute capability, for a GPU that fbgemm has no code for."""
    if device.type == "cuda":
        problem = capability_problem(torch.cuda.get_device_capability(device))
        if problem:
            raise HostError(f"{torch.cuda.get_device_name(device)}: {problem}")


def _collective_plan(
    planner: Planner, model: nn.Module, of_table: Mapping[str, TableSettings], worker: Worker
) -> ShardingPlan:
    """The first rank's plan, or the first rank's complaint, on every rank."""
    outcome: list[ShardingPlan | str | None] = [None]
    if worker.is_first:
        try:
            outcome[0] = planner(model, of_table, machines_here(worker))
        except InputError as error:
            outcome[0] = str(error)
    if worker.world_size > 1:
        dist.broadcast_object_list(outcome)
    if isinstance(outcome[0], str):
        raise InputError(outcome[0])
    return outcome[0]
