"""What the memory benchmark counts."""

from torchrec_mm.benchmarks import memory
from torchrec_mm.benchmarks.memory import MemoryConfig, compare


def test_a_row_costs_weights_and_one_number_of_state_and_ranks_share_the_rows(forked, monkeypatch):
    monkeypatch.setattr(memory, "in_fresh_process", lambda work, *args: work(*args))
    config = MemoryConfig(rows=20_000, embedding_dim=8, runs=1)
    row, rank = compare(config)
    assert row["ours"] == 4 * (8 + 1) <= row["promised"]
    assert row["baseline"] == 3 * 4 * 8  # weights and Adam's two moments
    assert row["ratio"] == row["baseline"] / row["ours"]
    assert rank["world_size"] == 2
    assert rank["ours_one_rank"] == 20_000 * 4 * (8 + 1)
    assert rank["ours"] == rank["ours_one_rank"] / 2
    assert rank["baseline"] == 20_000 * 3 * 4 * 8
