"""The checkpoint benchmark: what is compared, on the bytes of a real save."""

import pytest

from torchrec_mm.benchmarks.checkpoint import MATRIX, CheckpointConfig, compare


def test_time_lost_and_bandwidth_are_of_the_same_save(tmp_path):
    config = CheckpointConfig(work_dir=tmp_path, rows=20_000, embedding_dim=4, runs=1)
    training, disk = compare(config)
    assert (training["benchmark"], disk["benchmark"]) == ("checkpoint/training", "checkpoint/disk")
    dense = 3 * 4 * (MATRIX * MATRIX + MATRIX) + 2 * 4  # weights and two moments, two step counts
    assert training["bytes"] == 20_000 * 4 * (4 + 1) + dense
    rounded = pytest.approx(training["bytes"], rel=1e-12)
    assert disk["ours"] * training["baseline"] == rounded
    assert disk["ratio"] == disk["ours"] / disk["baseline"]
    assert not list(tmp_path.iterdir())
