"""The baseline of the Criteo benchmark: TorchRec as its own examples use it, on the CPU.

DLRM over one EmbeddingBagCollection, planned and sharded for DistributedModelParallel, row-wise
Adagrad fused into the backward pass, Adam for the dense part, batches sliced out of arrays in
memory. Its pipelines overlap copies to a GPU: here is none.

Source: torchrec.models.dlrm, and the training loops of github.com/meta-pytorch/torchrec/examples.
"""

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import ParameterConstraints
from torchrec.distributed.types import ModuleSharder, ShardingPlan, ShardingType
from torchrec.models.dlrm import DLRM, DLRMTrain
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from torchrec_mm.benchmarks.ranking.criteo_rows import Batch, CriteoRows, table_rows
from torchrec_mm.benchmarks.ranking.short_ours import train_ranker_config
from torchrec_mm.benchmarks.ranking.sides import Quality, ShortTask, steady_rate
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.metrics.auc import auc
from torchrec_mm.metrics.log_loss import log_loss
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group
from torchrec_mm.ranking.spec import RankerSettings

SCORED_BATCH = 4096


class DLRMBatch:
    """What DLRMTrain reads of a batch."""

    def __init__(self, batch: Batch) -> None:
        self.dense_features, self.sparse_features, self.labels = batch


def fused_plan(model: nn.Module, names: list[str], worker: Worker) -> ShardingPlan:
    """The planner's, of whole tables whose optimizer is fused: it would replicate small ones.

    Those would learn by another rule, in dense gradients.
    """
    whole = ParameterConstraints(
        sharding_types=[ShardingType.TABLE_WISE.value],
        compute_kernels=[EmbeddingComputeKernel.FUSED.value],
    )
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=worker.world_size, compute_device=worker.device.type),
        constraints={f"t_{name}": whole for name in names},
    )
    sharder = cast("ModuleSharder[nn.Module]", EmbeddingBagCollectionSharder())
    group = dist.group.WORLD
    assert group is not None  # the caller has made it
    return planner.collective_plan(model, [sharder], group)


class CriteoBaseline:
    """Data, model and optimizer; one rank learns from every ``world_size``-th batch."""

    def __init__(self, task: ShortTask, worker: Worker) -> None:
        assert task.batch_impressions is not None  # both sides have the same
        torch.manual_seed(task.seed)
        self.task, self.worker = task, worker
        self.rows = CriteoRows.load(task.folder / "rows" / "train.npz")
        settings = RankerSettings()  # as wide and as deep as ours
        data = EncodedRequests(task.folder / "encoded", "train")
        rates = train_ranker_config(task, data).optimizer()  # and as fast to learn
        num_rows = table_rows(task.folder / "rows")
        names = [*self.rows.columns, *self.rows.bags]
        tables = EmbeddingBagCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingBagConfig(
                    name=f"t_{name}",
                    feature_names=[name],
                    num_embeddings=num_rows[name],
                    embedding_dim=settings.embedding_dim,
                )
                for name in names
            ],
        )
        apply_optimizer_in_backward(
            RowWiseAdagrad, tables.parameters(), {"lr": rates.table_learning_rate}
        )
        dlrm = DLRM(
            embedding_bag_collection=tables,
            dense_in_features=self.rows.numbers.shape[1],
            dense_arch_layer_sizes=[*settings.hidden[1:], settings.embedding_dim],
            over_arch_layer_sizes=[*settings.hidden, 1],
        )
        model = DLRMTrain(dlrm)
        self.model = DistributedModelParallel(
            module=model, device=worker.device, plan=fused_plan(model, names, worker)
        )
        dense = KeyedOptimizerWrapper(
            dict(in_backward_optimizer_filter(self.model.named_parameters())),
            lambda parameters: torch.optim.Adam(parameters, lr=rates.learning_rate),
        )
        self.optimizer = CombinedOptimizer([self.model.fused_optimizer, dense])

    def step(self, batch: Batch) -> int:
        """Learn from one batch; its number of impressions."""
        self.optimizer.zero_grad()
        loss, _ = self.model(DLRMBatch(batch))
        loss.backward()
        self.optimizer.step()
        return len(batch[2])

    def batches(self, epochs: int | None) -> Iterator[Batch]:
        """Training batches of so many epochs, or without an end."""
        assert self.task.batch_impressions is not None
        rng, epoch = np.random.default_rng([self.task.seed, self.worker.rank]), 0
        size = max(1, self.task.batch_impressions // self.worker.world_size)
        while epochs is None or epoch < epochs:
            yield from self.rows.batches(size, rng)
            epoch += 1


def speed(task: ShortTask) -> float:
    """Impressions a second of all ranks together; one rank's part.

    Everything is in memory before the clock starts.
    """
    with suppress_library_warnings(), process_group() as worker:
        baseline = CriteoBaseline(task, worker)
        batches = baseline.batches(None)
        return steady_rate(lambda: baseline.step(next(batches)), task.seconds, worker.device)


def quality(task: ShortTask) -> Quality:
    """Log loss and AUC on the test set after ``task.epochs`` over the training set; one rank."""
    with suppress_library_warnings(), process_group() as worker:
        baseline = CriteoBaseline(task, worker)
        impressions = sum(baseline.step(batch) for batch in baseline.batches(task.epochs))
        test = CriteoRows.load(task.folder / "rows" / "test.npz")
        logits = scores(baseline.model, test)
        labels = test.labels.astype(np.int8)
        figures = auc(labels, logits), float("nan"), impressions, log_loss(labels, logits)
        return Quality(*figures)


@torch.no_grad()
def scores(model: nn.Module, rows: CriteoRows) -> np.ndarray:
    """(N,) float32 logits."""
    model.eval()
    found = [model(DLRMBatch(batch))[1][1] for batch in rows.batches(SCORED_BATCH, None)]
    return torch.cat(found).numpy()
