"""Tables of raw ids on one rank and on two: same rows, same learning, either's checkpoints."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from tests.parallel.launch import on_two_ranks
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharding import DistributedModel, OptimizerSettings, distribute
from torchrec_mm.parallel.tables import TableSettings
from torchrec_mm.parallel.zero_collision import check_zero_collision, flush_evictions
from torchrec_mm.ranking.zero_collision import ZeroCollision, build_zero_collision_tables
from torchrec_mm.runs.checkpoint import load_checkpoint, read_checkpoint
from torchrec_mm.runs.checkpoint_folders import find_checkpoint
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.tensor_shards import model_shards

WIDTH = 4
TABLES = {
    "user.id": ZeroCollision(rows=32, eviction="distance_lfu", interval_steps=2, partitions=4),
    "item_id": ZeroCollision(
        rows=24, eviction="lru", interval_steps=1, partitions=6
    ),  # 2**64 is no multiple
}
SETTINGS = OptimizerSettings(
    learning_rate=0.01, weight_decay=0.0, table_learning_rate=0.1, table_scale=0.05
)
STEPS, BATCH = 12, 8
FIRST, SECOND = range(STEPS // 2 - 1), range(STEPS // 2 - 1, STEPS)  # not at an eviction
# Sums of floats in another order. Measured after 12 steps: 7e-10.
TOLERANCE = 1e-7


@dataclass
class Batch(Pipelineable):
    """Raw ids of some requests, their labels, and the share of a global batch's loss."""

    ids: KeyedJaggedTensor
    labels: Tensor
    weight: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        return Batch(*(getattr(self, f.name).to(device=device) for f in fields(self)))

    def pin_memory(self) -> "Batch":
        return self

    def record_stream(self, stream: torch.Stream) -> None:
        return


class Scorer(nn.Module):
    """Raw ids to logits."""

    def __init__(self, device: str = "meta") -> None:
        super().__init__()
        self.tables = build_zero_collision_tables(TABLES, WIDTH, device)
        self.weight = nn.Parameter(torch.linspace(-1, 1, 2 * WIDTH))
        self.bias = nn.Parameter(torch.ones(1))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        embeddings, _ = self.tables(batch.ids)
        pair = torch.cat([embeddings[name] for name in TABLES], dim=-1)
        logits = pair @ self.weight + self.bias
        loss = nn.functional.softplus(torch.where(batch.labels, -logits, logits)).sum()
        return loss * batch.weight, logits


def batch_of(step: int, rank: int = 0, world_size: int = 1) -> Batch:
    """One rank's share of a global batch: skewed ids of both signs, the last item missing."""
    draw = np.random.default_rng(step)
    pool = np.random.default_rng(99).integers(-(2**63) + 1, 2**63, size=(2, 60))
    picks = np.minimum(draw.exponential(9, size=(2, BATCH)).astype(int) + step, 59)
    mine = np.array_split(np.arange(BATCH), world_size)[rank]
    lengths = np.ones((2, len(mine)), dtype=np.int32)
    lengths[1] = mine < BATCH - 1
    values = np.take_along_axis(pool, picks, axis=1)[:, mine][lengths > 0]
    return Batch(
        KeyedJaggedTensor(
            list(TABLES), torch.from_numpy(values), lengths=torch.from_numpy(lengths.flatten())
        ),
        torch.from_numpy(draw.random(BATCH)[mine] < 0.5),
        torch.tensor(world_size / BATCH),
    )


def distributed_on(worker: Worker) -> DistributedModel:
    return distribute(Scorer(), worker, SETTINGS, seed=0)


def train(distributed: DistributedModel, steps: range, checkpoint: Path) -> None:
    """Take the steps, then save all there is."""
    worker, pipeline = distributed.worker, distributed.pipeline()
    batches = iter([batch_of(step, worker.rank, worker.world_size) for step in steps])
    for _ in steps:
        pipeline.progress(batches)
    pipeline.detach()
    flush_evictions(distributed.model)
    save(distributed, checkpoint)


def save(distributed: DistributedModel, checkpoint: Path) -> None:
    with Checkpointer(checkpoint) as checkpointer:
        checkpointer.save(model_shards(distributed.model, distributed.optimizer), Position())


def read(checkpoint: Path, prefix: str) -> dict[str, Tensor]:
    return read_checkpoint(find_checkpoint(checkpoint).folder, prefix)


def resume(worker: Worker, checkpoint: Path) -> DistributedModel:
    distributed = distributed_on(worker)
    distributed.create_optimizer_state()
    shards = model_shards(distributed.model, distributed.optimizer)
    load_checkpoint(find_checkpoint(checkpoint).folder, shards)
    return distributed


def scores(distributed: DistributedModel) -> Tensor:
    """(STEPS * BATCH / W,) logits of this rank's share of all batches, in evaluation mode."""
    worker = distributed.worker
    distributed.model.eval()
    with torch.no_grad():
        batches = (batch_of(step, worker.rank, worker.world_size) for step in range(STEPS))
        logits = [distributed.model(batch)[1] for batch in batches]
    distributed.model.train()
    return torch.stack(logits)


def on_each_rank(worker: Worker, folder: Path) -> None:
    """Train the first half and the second, and go on where the run of one rank was half done."""
    distributed = distributed_on(worker)
    train(distributed, FIRST, folder / "2")
    torch.save(scores(distributed), folder / f"scores-{worker.rank}.pt")
    train(distributed, SECOND, folder / "22")
    train(resume(worker, folder / "1"), SECOND, folder / "12")


@pytest.fixture(scope="module")
def runs(worker, tmp_path_factory) -> Path:
    """Checkpoints after half the steps and after all, each named by the ranks of its halves."""
    folder = tmp_path_factory.mktemp("runs")
    distributed = distributed_on(worker)
    train(distributed, FIRST, folder / "1")
    train(distributed, SECOND, folder / "11")
    on_two_ranks(__name__, folder)
    train(resume(worker, folder / "2"), SECOND, folder / "21")
    return folder


def assert_same(left: Path, right: Path, tolerance: float) -> None:
    """Owners alike to the last bit, weights and optimizer state within the tolerance."""
    left, right = read(left, ""), read(right, "")
    assert left.keys() == right.keys()
    for key, tensor in left.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, right[key], rtol=0, atol=tolerance), key
        else:
            assert torch.equal(tensor, right[key]), key


def owners(checkpoint: Path, table: str) -> Tensor:
    prefix = f"model.tables._managed_collision_collection._managed_collision_modules.{table}."
    return read(checkpoint, prefix)["ids"]


def test_ids_get_rows_and_lose_them_in_this_run(runs):
    for table in ("user_id_table", "item_id_table"):
        half, end = owners(runs / "1", table), owners(runs / "11", table)
        owned = half != torch.iinfo(torch.int64).min
        assert owned.sum() > len(half) / 2
        assert (half != end)[owned].any() and (half == end)[owned].any()


def test_two_ranks_give_the_rows_that_one_gives_and_learn_alike(runs):
    assert_same(runs / "2", runs / "1", TOLERANCE)
    assert_same(runs / "22", runs / "11", TOLERANCE)


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(worker, runs, tmp_path):
    train(resume(worker, runs / "1"), SECOND, tmp_path / "11")
    assert_same(tmp_path / "11", runs / "11", 0)


@pytest.mark.parametrize("ranks", ["12", "21"])
def test_a_run_goes_on_with_another_number_of_ranks(ranks, runs):
    assert_same(runs / ranks, runs / "11", TOLERANCE)


def test_a_checkpoint_of_two_ranks_scores_alike_on_one(worker, runs):
    here = scores(resume(worker, runs / "2"))
    there = [torch.load(runs / f"scores-{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.allclose(here, torch.cat(there, dim=1), atol=TOLERANCE)


def test_a_checkpoint_of_two_ranks_scores_alike_in_a_model_that_was_never_distributed(runs):
    scorer = Scorer("cpu").eval()
    scorer.load_state_dict(read(runs / "2", "model."))
    here = torch.stack([scorer(batch_of(step))[1] for step in range(STEPS)])
    there = [torch.load(runs / f"scores-{rank}.pt", weights_only=True) for rank in range(2)]
    assert torch.allclose(here, torch.cat(there, dim=1), atol=TOLERANCE)


def test_evaluation_changes_nothing(worker, runs, tmp_path):
    distributed = resume(worker, runs / "1")
    scores(distributed)
    save(distributed, tmp_path / "after")
    assert_same(tmp_path / "after", runs / "1", 0)


@pytest.mark.parametrize("table", ["item_id_table", "user_id_table"])
def test_a_row_with_a_new_owner_starts_at_zero_and_its_optimizer_state_too(table, worker, runs):
    distributed = resume(worker, runs / "1")
    state = {
        key: own.parts[0][1]
        for key, own in model_shards(distributed.model, distributed.optimizer).items()
        if f".{table}." in key and ".weight" in key or key.endswith(f"{table}.ids")
    }
    (ids,) = (tensor for key, tensor in state.items() if key.endswith(".ids"))
    learned = [tensor for tensor in state.values() if tensor.is_floating_point()]
    assert len(learned) == 2  # weights, and one number a row of Adagrad
    for tensor in learned:
        tensor.fill_(1)
    before = ids.clone()
    distributed.model(batch_of(40))  # evicts items, and only takes note of users
    if table == "user_id_table":
        assert torch.equal(before, ids)
        flush_evictions(distributed.model)
    changed = before != ids
    assert changed.any() and not changed.all()
    for tensor in learned:
        assert torch.equal(tensor.view(len(ids), -1).eq(0).all(1), changed)
        assert tensor[~changed].eq(1).all()


@pytest.mark.parametrize(
    ("user_id", "world_size", "rule"),
    [
        ({}, 3, "zero_collision.user_id_table.partitions must be .* number of ranks, 3, got 4"),
        ({"sharding": "table_wise"}, 2, "tables.user_id_table.sharding must be row_wise with zero"),
        ({"kernel": "fused_uvm"}, 2, "tables.user_id_table.kernel must be fused with zero"),
    ],
)
def test_a_table_of_raw_ids_is_cut_by_whole_partitions_or_refused(user_id, world_size, rule):
    tables = {"user_id_table": TableSettings(**user_id), "item_id_table": TableSettings()}
    with pytest.raises(InputError, match=rule):
        check_zero_collision(Scorer(), tables, world_size)
