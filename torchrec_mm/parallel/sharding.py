"""From a model for one device to a model over all ranks: plan, shard, optimise, pipeline."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import (
    HardwareConfig,
    KernelConfig,
    TopologyFactory,
    TrainerConfig,
)
from torchrec.distributed.train_pipeline import TrainPipelineBase, TrainPipelineSparseDist
from torchrec.distributed.types import ShardingEnv, ShardingPlan, ShardingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from torchrec_mm.parallel.initialise import initialise_tables
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.zero_collision import ZeroCollisionSharder


@dataclass(frozen=True)
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


class RowWiseEverywhereSharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder, which offers row-wise plans on CUDA only, with them on the CPU too."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        # Without an optimizer of its own a replicated table would need another update rule.
        return [EmbeddingComputeKernel.FUSED.value]


class DensePipeline(TrainPipelineBase):
    """For a model without tables: the sparse pipeline would trace all of it in search of one."""

    def detach(self) -> None:
        """Nothing was rewritten, so there is nothing to undo."""


@dataclass(frozen=True)
class DistributedModel:
    """A model over all ranks, with its optimizer: what the fit loop and checkpoints hold."""

    model: DistributedModelParallel
    optimizer: CombinedOptimizer
    dense_optimizer: KeyedOptimizerWrapper
    plan: ShardingPlan
    worker: Worker

    def pipeline(self) -> TrainPipelineSparseDist | DensePipeline:
        """A fresh pipeline; never shared between training and evaluation, nor between epochs."""
        if not self.plan.plan:
            return DensePipeline(self.model, self.optimizer, self.worker.device)
        return TrainPipelineSparseDist(
            self.model, self.optimizer, self.worker.device, execute_all_batches=True
        )

    def create_optimizer_state(self) -> None:
        """Make room for Adam's state, for a checkpoint to fill; call it before that is loaded."""
        self.dense_optimizer.init_state()


def distribute(
    model: nn.Module, worker: Worker, settings: OptimizerSettings, seed: int
) -> DistributedModel:
    """Shard the tables of ``model``, replicate the rest, attach the optimizers.

    Args:
        model: its EmbeddingBagCollections on the meta device, the rest on the CPU with the same
            values on every rank.
        worker: this rank. settings: for the optimizers. seed: of the tables' initial weights.
    """
    for module in model.modules():
        if isinstance(module, EmbeddingBagCollection):
            _apply_optimizer_in_backward(
                RowWiseAdagrad,
                module.parameters(),
                {"lr": settings.table_learning_rate},
            )
    sharders = [RowWiseEverywhereSharder(), ZeroCollisionSharder()]
    plan = _planner(worker).collective_plan(model, sharders, dist.group.WORLD)
    sharded = DistributedModelParallel(
        model,
        env=ShardingEnv.from_process_group(dist.group.WORLD),
        device=worker.device,
        plan=plan,
        sharders=sharders,
    )
    initialise_tables(sharded, settings.table_scale, seed)
    dense = KeyedOptimizerWrapper(
        {
            name: parameter
            for name, parameter in in_backward_optimizer_filter(sharded.named_parameters())
            if parameter.requires_grad
        },
        lambda parameters: torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        ),
    )
    return DistributedModel(
        sharded, CombinedOptimizer([sharded.fused_optimizer, dense]), dense, plan, worker
    )


def _planner(worker: Worker) -> EmbeddingShardingPlanner:
    """A planner that knows this machine's memory; 15 % of it is left to everything else."""
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = worker.device
    host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    topology = TopologyFactory.create_topology(
        TrainerConfig(world_size=worker.world_size, local_world_size=local_world_size),
        HardwareConfig(
            hbm_cap_bytes=torch.cuda.get_device_properties(device).total_memory
            if device.type == "cuda"
            else None,
            ddr_cap_bytes=host_bytes // local_world_size,
        ),
        KernelConfig(compute_device=device.type),
    )
    return EmbeddingShardingPlanner(
        topology=topology,
        storage_reservation=FixedPercentageStorageReservation(0.15),
        debug=False,
    )
