"""The Criteo benchmark: what both sides are given, and what is compared with what."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from torchrec_mm.benchmarks import criteo
from torchrec_mm.benchmarks.criteo import CriteoConfig, compare
from torchrec_mm.benchmarks.ranking import criteo_baseline, short_ours, training
from torchrec_mm.benchmarks.ranking.criteo_data import (
    BAGS,
    MEAN_LENGTH,
    CriteoDataConfig,
    criteo_data,
)
from torchrec_mm.benchmarks.ranking.criteo_rows import CriteoRows, table_rows
from torchrec_mm.benchmarks.ranking.sides import Quality, ShortTask
from torchrec_mm.data.encoded.encoded import EncodedRequests, RequestArrays

SMALL = {"rows": 600, "candidates": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("criteo") / "data"
    with criteo_data(CriteoDataConfig(work_dir=folder, **SMALL)) as made:
        return made


def test_rows_are_of_criteos_shape_and_without_a_behaviour(folder):
    table = pq.read_table(folder / "market" / "requests" / "train")
    names = {name.partition("_")[0] for name in table.column_names}
    assert names == {"user", "category", "bag", "number", "behaviour", "candidate", "labels"}
    rows = CriteoRows.load(folder / "rows" / "train.npz")
    assert len(rows.columns) + len(rows.bags) == 26 and rows.numbers.shape[1] == 2 * 13
    assert {*rows.bags} == {*BAGS}
    for bag in rows.bags.values():
        assert bag.lengths.mean() == pytest.approx(MEAN_LENGTH, rel=0.1)
    behaviours = table["behaviour_item_ids"].combine_chunks()
    assert len(behaviours) == 270 and len(behaviours.flatten()) == 0


def test_both_sides_have_the_same_rows(folder):
    data = EncodedRequests(folder / "encoded", "train")
    arrays = RequestArrays.concatenate([data.read(group) for group in data.groups])
    rows = CriteoRows.load(folder / "rows" / "train.npz")
    owners = arrays.candidates.owners()
    assert np.array_equal(rows.labels, arrays.labels)
    assert np.array_equal(rows.columns["user_id"], arrays.request_rows["user_id"][owners])
    at = arrays.request_bags["bag_1"].take(owners)[0]
    assert np.array_equal(rows.bags["bag_1"].values, at.values)
    assert table_rows(folder / "rows") == data.num_rows
    numbers, bags, labels = rows.slice(3, 8)
    assert bags.stride() == len(labels) == len(numbers) == 5
    own = bags.to_dict()["bag_1"].values().tolist()
    assert own == at.values[at.offsets[3] : at.offsets[8]].tolist()


@pytest.mark.slow
def test_both_sides_learn_from_all_of_them(folder):
    task = ShortTask(folder=folder, seconds=0, epochs=1, seed=0, batch_impressions=64)
    for side in (short_ours, criteo_baseline):
        found = criteo.in_fresh_process(side.quality, task, threads=1)
        assert found.impressions == 540 and 0 < found.log_loss < 1.5


def test_the_lines_compare_what_their_names_say(folder, monkeypatch):
    rates = {
        (short_ours, 64): 30.0,
        (criteo_baseline, 64): 10.0,
        (short_ours, 256): 80.0,
        (criteo_baseline, 256): 20.0,
    }
    reached = {short_ours: Quality(0.7, 0.7, 9, 0.5), criteo_baseline: Quality(0.7, 0.7, 9, 0.6)}

    def side_of(function) -> object:
        return next(side for side in reached if side.__name__ == function.__module__)

    monkeypatch.setattr(
        training,
        "on_fresh_ranks",
        lambda f, task, world_size, threads: [rates[side_of(f), task.batch_impressions]],
    )
    monkeypatch.setattr(criteo, "in_fresh_process", lambda f, task, threads: reached[side_of(f)])
    monkeypatch.setattr(criteo, "command_speed", lambda command, threads: 60.0)
    batches = {"batch_impressions": 64, "large_batch_impressions": 256}
    config = CriteoConfig(work_dir=folder, runs=1, baseline_command="else", **SMALL, **batches)
    assert {line["benchmark"]: line["ratio"] for line in compare(config)} == {
        "criteo": 3.0,
        "criteo/large": 4.0,
        "criteo/command": 0.5,
        "criteo/log_loss": 1.2,
        "criteo/large/log_loss": 1.2,
    }
