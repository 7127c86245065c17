"""The preparation of a drawn log, measured and compared."""

import pyarrow.parquet as pq
import pytest

from torchrec_mm.benchmarks import prepare
from torchrec_mm.benchmarks.prepare import PrepareConfig, check_sample, compare, run_prepare
from torchrec_mm.benchmarks.prepare_log import draw_log


def test_a_line_says_speed_memory_and_how_many_users_agree(monkeypatch, tmp_path):
    monkeypatch.setattr(prepare, "in_fresh_process", lambda work, *args: work(*args))
    config = PrepareConfig(events=100_000, memory_gb=1, runs=1, work_dir=tmp_path)
    (line,) = compare(config)
    assert line["ratio"] == line["ours"] / line["baseline"]
    assert 0.05 < line["peak_gb"] < 1
    assert line["equal_users"] == 200
    assert list(tmp_path.iterdir()) == []


def test_requests_that_differ_from_the_oracle_are_an_error(tmp_path):
    draw_log(tmp_path / "log", 1000)
    run_prepare(tmp_path, 1)
    assert check_sample(tmp_path, 5) == 5
    path = tmp_path / "data" / "requests" / "train" / "part-0000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(RuntimeError, match="requests of user 0 are not those of the oracle"):
        check_sample(tmp_path, 5)


def test_the_same_number_of_events_gives_the_same_log(tmp_path):
    for name in ("one", "two"):
        draw_log(tmp_path / name, 2000)
    one, two = (pq.read_table(tmp_path / name) for name in ("one", "two"))
    assert one.sort_by([(name, "ascending") for name in one.column_names]) == two.sort_by(
        [(name, "ascending") for name in two.column_names]
    )
    kinds = one["event"].value_counts().to_pylist()
    assert {kind["values"]: kind["counts"] for kind in kinds} == {
        "impression": 1600,
        "click": 200,
        "basket": 200,
    }
