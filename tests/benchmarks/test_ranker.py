"""The ranker benchmark on little data: both sides, their data, and what is compared."""

import pytest
import torch

from tests.benchmarks.conftest import SMALL
from torchrec_mm.benchmarks import ranker
from torchrec_mm.benchmarks.ranker import RankerConfig, compare
from torchrec_mm.benchmarks.ranking import ours
from torchrec_mm.benchmarks.ranking.data import DataConfig, ranker_data
from torchrec_mm.benchmarks.ranking.ours import Ours, spread
from torchrec_mm.benchmarks.ranking.sides import Quality, RankerTask
from torchrec_mm.errors import InputError


def task(folder, **changed) -> RankerTask:
    values = {
        "folder": folder,
        "batch_impressions": 60,
        "seconds": 0.01,
        "epochs": 2,
        "embedding_dim": 8,
        "seed": 0,
        "baseline_workers": 0,
    }
    return RankerTask(**{**values, **changed})


def test_data_that_is_there_is_used_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with ranker_data(DataConfig(work_dir=folder, **SMALL)) as again:
        assert {path: path.stat().st_mtime_ns for path in again.rglob("*")} == before


def test_a_part_that_is_missing_is_made_and_the_others_stay(folder):
    vectors = folder / "vectors"
    vectors.rename(folder / "moved")
    before = (folder / "tables").stat().st_mtime_ns
    with ranker_data(DataConfig(work_dir=folder, **SMALL)):
        for file in vectors.iterdir():
            assert file.read_bytes() == (folder / "moved" / file.name).read_bytes()
    assert (folder / "tables").stat().st_mtime_ns == before


def test_data_of_another_size_or_of_somebody_else_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="work_dir must hold data of .*'users': 25"):
        with ranker_data(DataConfig(work_dir=folder, **{**SMALL, "users": 25})):
            pass
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="work_dir must be a new folder"):
        with ranker_data(DataConfig(work_dir=tmp_path, **SMALL)):
            pass


def test_without_a_folder_the_data_is_gone_afterwards():
    with ranker_data(DataConfig(**SMALL)) as made:
        assert (made / "encoded" / "meta.json").exists()
    assert not made.exists()


def test_our_side_learns_from_every_impression_and_scores_the_test_set(folder):
    reached = ours.quality(task(folder))
    assert reached.impressions == 2 * 24 * 11
    assert 0 <= reached.auc <= 1 and 0 <= reached.gauc <= 1
    assert ours.quality(task(folder)) == reached


def test_our_side_has_a_speed(folder):
    assert ours.speed(task(folder)) > 0


def test_batches_hold_about_the_impressions_asked_for(folder, worker):
    batches = Ours(task(folder), worker).batches([0])
    sizes = [len(batch.labels) for batch in batches]
    assert sizes == [55] * 4 + [44]


def test_a_larger_table_is_read_as_often_and_all_over(folder, worker):
    (batch, *_) = Ours(task(folder), worker).batches([0])
    torch.manual_seed(0)
    before, after = batch.item_ids, spread(batch, 1_000_000).item_ids
    assert after.keys() == before.keys() == ["item_id"]
    torch.testing.assert_close(after.lengths(), before.lengths())
    rows = after.values()
    assert rows.dtype == before.values().dtype and rows.shape == before.values().shape
    assert 0 <= rows.min() < 100_000 and 900_000 < rows.max() < 1_000_000


@pytest.mark.parametrize(("requests", "rate"), [(32, 1e-3), (91, 91e-3 / 32), (5000, 16e-3)])
def test_rates_by_default_are_those_of_the_command(requests, rate):
    settings = ours.rates(requests, by_default=True)
    assert settings.learning_rate == pytest.approx(rate)
    assert (settings.table_learning_rate, settings.table_scale) == (0.05, 0.01)
    assert ours.rates(requests, by_default=False).learning_rate == 3e-3


@pytest.fixture
def rates(monkeypatch):
    """Sides that take no time: {(side, batch, table_rows): impressions a second}."""
    rates = {}
    monkeypatch.setattr(
        ranker,
        "rate",
        lambda speed, task, config: (
            lambda: rates[
                speed.__module__.rpartition(".")[2], task.batch_impressions, task.table_rows
            ]
        ),
    )
    monkeypatch.setattr(ranker, "command_speed", lambda command, threads: 25.0)
    monkeypatch.setattr(
        ranker,
        "in_fresh_process",
        lambda quality, task, threads: (
            Quality(0.5, 0.4, 264)
            if quality is not ours.quality
            else Quality(0.72 if task.default_rates else 0.6, 0.7, 264)
            if task.batch_impressions == 1000
            else Quality(0.36, 0.3, 264)
        ),
    )
    return rates


def test_the_lines_compare_what_their_names_say(rates, folder):
    rates |= {("ours", 1000, 0): 100.0, ("ours", 5500, 0): 300.0, ("baseline", 1000, 0): 5.0}
    rates |= {("ours", 1000, 10): 80.0, ("ours", 1000, 1000): 76.0}
    more = {"baseline_command": "theirs", "table_rows": (10, 1000), "runs": 2}
    config = RankerConfig(work_dir=folder, **more, **SMALL)
    lines = {line["benchmark"]: line for line in compare(config)}
    assert {name: line["ratio"] for name, line in lines.items()} == {
        "ranker": 20.0,
        "ranker/best_batch": 60.0,
        "ranker/command": 4.0,
        "ranker/auc": 1.2,
        "ranker/batch_auc": 0.5,
        "ranker/table_rows": 0.95,
    }
    of_batches = lines["ranker/batch_auc"]
    assert of_batches["batch_impressions"] == 5500 and of_batches["ours_gauc"] == 0.3
    assert lines["ranker/best_batch"]["batch_impressions"] == 5500
    assert lines["ranker/auc"]["baseline_gauc"] == 0.4
    assert 0 < lines["ranker/auc"]["true_auc"] < 1


def test_auc_command_and_table_sizes_can_be_left_out(rates, folder):
    rates |= {("ours", 1000, 0): 100.0, ("ours", 5500, 0): 300.0, ("baseline", 1000, 0): 5.0}
    config = RankerConfig(work_dir=folder, epochs=0, runs=1, **SMALL)
    assert [line["benchmark"] for line in compare(config)] == ["ranker", "ranker/best_batch"]
