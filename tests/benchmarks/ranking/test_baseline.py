"""The ranker's baseline: its parts against plain Python, and that it learns."""

import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from torchrec_mm.benchmarks.ranking import baseline as ranker_baseline
from torchrec_mm.benchmarks.ranking.baseline import Baseline, quality
from torchrec_mm.benchmarks.ranking.baseline_network import (
    Attention,
    BaselineNetwork,
    SortedIds,
    tier_counts,
)
from torchrec_mm.benchmarks.ranking.baseline_rows import join_tables, rows_loader
from torchrec_mm.benchmarks.ranking.sides import RankerTask
from torchrec_mm.metrics.auc import auc
from torchrec_mm.parallel.process_group import process_group
from torchrec_mm.simulation.taobao_mm.simulate import make_tables

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("baseline")
    (root / "tables").mkdir()
    make_tables(root / "tables", users=40, items=300, behaviours=80, candidates=11, seed=0)
    join_tables(root / "tables", root / "joined")
    return root


def test_an_id_is_its_place_among_the_known_ones_plus_one(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([-7, 3, 9]))
    ids = torch.tensor([[9, -7], [4, 3], [100, -100]])
    assert SortedIds(tmp_path / "ids.npy", CPU).rows(ids).tolist() == [[3, 1], [0, 2], [0, 0]]


def test_tiers_count_tenths():
    cosine = torch.tensor([[1.0, 0.05, 0.0, -0.05, -1.0, 0.95]])
    counts = [0.0] * 22
    for value in cosine[0].tolist():
        counts[math.ceil(value * 10) + 10] += 1
    assert tier_counts(cosine).tolist() == [counts]


def test_cosines_are_those_of_the_vectors_and_0_without_one(folder):
    table = pq.read_table(folder / "tables" / "scl_embedding_int8_p90.parquet").to_pylist()
    vectors = {row["205"]: np.array(row["205_c"], float) for row in table}
    batch = next(iter(rows_loader(folder / "joined" / "train.parquet", 8, 0)))
    cosine = BaselineNetwork(folder / "joined", 8, CPU).cosine(batch["205"], batch["150_2_180"])
    for i, j in [(0, 999), (3, 990), (7, 985), (0, 0)]:
        pair = [vectors.get(int(batch["205"][i])), vectors.get(int(batch["150_2_180"][i, j]))]
        lengths = [np.linalg.norm(vector) for vector in pair if vector is not None]
        wanted = pair[0] @ pair[1] / math.prod(lengths) if len(lengths) == 2 else 0.0
        assert cosine[i, j].item() == pytest.approx(wanted, abs=1e-6)


def test_cosines_move_the_attention_that_mixes_them():
    torch.manual_seed(0)
    attention = Attention(4, with_cosine=True)
    target, behaviours = torch.randn(1, 4), torch.randn(1, 3, 4)
    alike = torch.tensor([[0.0, 0.0, 30.0]])
    nearest = attention(target, behaviours, alike)
    torch.testing.assert_close(nearest, behaviours[:, 2], atol=1e-2, rtol=0)


def task(folder) -> RankerTask:
    return RankerTask(
        folder=folder,
        batch_impressions=64,
        seconds=1,
        epochs=1,
        embedding_dim=8,
        seed=0,
        baseline_workers=0,
    )


def test_it_learns_tables_and_dense_part(folder):
    with process_group():
        baseline = Baseline(task(folder), CPU)
        batch = next(iter(rows_loader(folder / "joined" / "train.parquet", 64, 0)))
        before = {n: p.detach().clone() for n, p in baseline.network.named_parameters()}
        losses = []
        for _ in range(12):
            logits = baseline.network(batch).detach()
            losses.append(F.binary_cross_entropy_with_logits(logits, batch["label"]).item())
            assert baseline.step(batch) == 64
        assert losses[-1] < 0.95 * losses[0]
        for name, parameter in baseline.network.named_parameters():
            assert not torch.equal(parameter, before[name]), name


def test_weights_ids_vectors_and_batches_are_on_the_device(folder, monkeypatch):
    elsewhere = torch.device("meta")  # which takes no operand from the CPU, as a GPU takes none
    monkeypatch.setattr(ranker_baseline, "averaged", lambda network, device: network)
    batch = next(iter(rows_loader(folder / "joined" / "train.parquet", 64, 0)))
    baseline = Baseline(task(folder), elsewhere)
    with pytest.raises(RuntimeError, match="device"):
        baseline.model(batch)
    assert baseline.model(baseline.on_device(batch)).device == elsewhere
    baseline.model = lambda moved: 1 / (moved["label"].device != elsewhere)
    with pytest.raises(ZeroDivisionError):
        baseline.step(batch)


@pytest.mark.parametrize(("kind", "ranks"), [("cpu", 1), ("cpu", 2), ("cuda", 2)])
def test_gradients_are_averaged_by_gloo(monkeypatch, kind, ranks):
    made = {}
    monkeypatch.setattr(
        ranker_baseline, "DistributedDataParallel", lambda module, **more: made.update(more)
    )
    with process_group():
        monkeypatch.setattr(dist, "get_world_size", lambda: ranks)
        monkeypatch.setattr(dist, "new_group", lambda backend: f"a group on {backend}")
        ranker_baseline.averaged(torch.nn.Linear(1, 1), torch.device(kind))
    assert made == {"process_group": "a group on gloo"}


def test_quality_is_of_all_test_impressions_after_all_training_ones(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(ranker_baseline, "auc", lambda y, x: seen.append((y, x)) or auc(y, x))
    reached = quality(task(folder))
    assert reached.impressions == 40 * 11
    ((labels, logits),) = seen
    clicks = pq.read_table(folder / "tables" / "test_samples.parquet")["label_0"].to_pylist()
    assert labels.tolist() == [click for _, click in clicks]
    assert reached.auc == auc(labels, logits) and 0 <= reached.gauc <= 1
