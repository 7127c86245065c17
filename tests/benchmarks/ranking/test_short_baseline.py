"""The short benchmark's baseline: its network against plain Python, and that it learns."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from torchrec_mm.benchmarks.ranking import short_baseline
from torchrec_mm.benchmarks.ranking.short_baseline import ShortBaseline, quality, speed
from torchrec_mm.benchmarks.ranking.short_baseline_network import PlainDIN
from torchrec_mm.benchmarks.ranking.short_rows import JoinedRows
from torchrec_mm.benchmarks.ranking.sides import ShortTask
from torchrec_mm.metrics.auc import auc
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.ranking.spec import RankerSettings


@pytest.fixture
def task(short_folder) -> ShortTask:
    return ShortTask(folder=short_folder, seconds=0.01, epochs=2, seed=0, batch_impressions=64)


@pytest.fixture
def baseline(task, worker) -> ShortBaseline:
    return ShortBaseline(task, worker)


@pytest.fixture
def batch(short_folder) -> dict[str, torch.Tensor]:
    rows = JoinedRows(short_folder / "joined" / "train.parquet")
    return rows[torch.arange(0, len(rows), len(rows) // 64)]


@pytest.fixture
def network(baseline) -> PlainDIN:
    """Weights large enough that each part tells in the logits."""
    torch.manual_seed(1)
    for parameter in baseline.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return baseline.network


def test_logits_are_those_of_one_pair_at_a_time(network, batch):
    tables = {name: table.weight for name, table in network.tables.items()}
    logits = network(batch)
    assert sorted(network.items) == ["category", "item_id"]
    for i in range(0, len(logits), 7):
        target = torch.cat([tables[name][batch[name][i]] for name in network.items])
        interest = torch.zeros(32)
        for j in range(12):
            past = {name: batch[f"history_{name}"][i, j] for name in network.items}
            if past["item_id"] == 0:
                continue
            each = torch.cat([tables[name][row] for name, row in past.items()])
            unit = network.unit(torch.cat([target, each, target - each, target * each]))
            interest = interest + unit * each
        inputs = [tables[name][batch[name][i]] for name in network.tables]
        wanted = network.mlp(torch.cat([*inputs, interest])).squeeze()
        torch.testing.assert_close(logits[i], wanted)


def test_padding_is_invisible(network, batch):
    before = network(batch)
    with torch.no_grad():
        for table in network.tables.values():
            table.weight[0] = 9.0
    torch.testing.assert_close(network(batch), before)


def test_a_table_a_column_is_as_wide_and_the_mlp_as_deep_as_ours_by_default(network, short_folder):
    num_rows = json.loads((short_folder / "joined" / "num_rows.json").read_text())
    settings = RankerSettings()
    shapes = {name: tuple(table.weight.shape) for name, table in network.tables.items()}
    assert shapes == {name: (rows, settings.embedding_dim) for name, rows in num_rows.items()}
    widths = [layer.out_features for layer in network.mlp if hasattr(layer, "out_features")]
    assert widths == [*settings.hidden, 1]


def test_it_learns_all_its_weights_but_not_those_of_padding(baseline, batch):
    before = {name: value.detach().clone() for name, value in baseline.network.named_parameters()}
    losses = []
    for _ in range(40):
        logits = baseline.network(batch).detach()
        losses.append(F.binary_cross_entropy_with_logits(logits, batch["label"]).item())
        assert baseline.step(batch) == len(batch["label"])
    assert losses[-1] < 0.9 * losses[0]
    for name, value in baseline.network.named_parameters():
        assert not torch.equal(value, before[name]), name
        if name.startswith("tables."):
            assert torch.equal(value[0], before[name][0]), name


def test_the_batch_is_on_the_device_of_the_network(task, batch):
    elsewhere = torch.device("meta")  # which takes no operand from the CPU, as a GPU takes none
    baseline = ShortBaseline(task, Worker(elsewhere, 0, 1))
    with pytest.raises(RuntimeError, match="device"):
        baseline.model(batch)
    assert baseline.model(baseline.on_device(batch)).device == elsewhere


def test_gradients_are_averaged_over_several_ranks_and_one_does_without(task, monkeypatch):
    averaged = []
    monkeypatch.setattr(
        short_baseline,
        "DistributedDataParallel",
        lambda network: averaged.append(network) or network,
    )
    for ranks in (1, 2):
        ShortBaseline(task, Worker(torch.device("cpu"), 0, ranks))
    assert len(averaged) == 1 and isinstance(averaged[0], PlainDIN)


def test_quality_is_of_all_test_impressions_after_all_training_ones(task, monkeypatch):
    seen = []
    monkeypatch.setattr(short_baseline, "auc", lambda y, x: seen.append((y, x)) or auc(y, x))
    reached = quality(task)
    train, test = (
        JoinedRows(task.folder / "joined" / f"{split}.parquet") for split in ("train", "test")
    )
    assert reached.impressions == 2 * len(train)
    ((labels, logits),) = seen
    assert labels.tolist() == test.columns["label"].tolist() and len(logits) == len(test)
    assert reached.auc == auc(labels, logits) and 0 <= reached.gauc <= 1
    assert quality(task) == reached
    assert quality(replace(task, epochs=1)).impressions == len(train)


def test_it_has_a_speed(task):
    assert speed(replace(task, baseline_workers=1)) > 0
