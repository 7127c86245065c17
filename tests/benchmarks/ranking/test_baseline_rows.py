"""The joined rows that the ranker's baseline reads."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from torchrec_mm.benchmarks.ranking import baseline_rows as ranker_baseline_rows
from torchrec_mm.benchmarks.ranking.baseline_rows import join_tables, padded, rows_loader
from torchrec_mm.simulation.taobao_mm.simulate import make_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """tables/ and joined/ of 60 users in row groups of 100 impressions."""
    root = tmp_path_factory.mktemp("rows")
    (root / "tables").mkdir()
    make_tables(root / "tables", users=60, items=300, behaviours=80, candidates=11, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranker_baseline_rows, "ROW_GROUP", 100)
        join_tables(root / "tables", root / "joined")
    return root


def expected_rows(tables, split):
    """The join, one sample at a time."""

    def rows(name):
        return pq.read_table(tables / f"{name}.parquet").to_pylist()

    users = {row["129_1"]: row for row in rows(f"{split}_user_features")}
    items = {row["205"]: row for row in rows("item_features")}
    return [
        {**users[sample["129_1"]], **items[sample["205"]], "label_0": sample["label_0"]}
        for sample in rows(f"{split}_samples")
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_impression_holds_its_users_history_and_its_items_attributes(folder, split):
    written = pq.read_table(folder / "joined" / f"{split}.parquet").to_pylist()
    assert written == expected_rows(folder / "tables", split)


def test_rows_come_in_compressed_row_groups(folder):
    metadata = pq.read_metadata(folder / "joined" / "train.parquet")
    assert [metadata.row_group(i).num_rows for i in range(7)] == [100] * 6 + [60]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_known_ids_are_sorted_and_those_of_past_items_are_among_them(folder):
    rows = expected_rows(folder / "tables", "train")
    for column, past in (("206", "151_2_180"), ("129_1", None)):
        ids = {row[column] for row in rows} | {i for row in rows if past for i in row[past]}
        keys = np.load(folder / "joined" / f"{column}.npy", allow_pickle=False)
        assert set(keys.tolist()) >= ids
        assert (np.diff(keys) > 0).all()


def test_batches_hold_all_rows_in_order_histories_padded_in_front(folder):
    rows = expected_rows(folder / "tables", "train")
    batches = list(rows_loader(folder / "joined" / "train.parquet", 64, 0))
    assert [len(batch["label"]) for batch in batches] == [64] * 10 + [20]
    seen = [
        {name: values[i].tolist() for name, values in batch.items()}
        for batch in batches
        for i in range(len(batch["label"]))
    ]
    for row, got in zip(rows, seen, strict=True):
        history = row["150_2_180"]
        assert got["150_2_180"] == [0] * (1000 - len(history)) + history
        assert got["205"] == row["205"] and got["130_3"] == row["130_3"]
        assert got["label"] == row["label_0"][1]


def test_a_longer_history_keeps_its_newest_1000():
    assert padded(list(range(1200))) == list(range(200, 1200))


def test_ranks_share_the_rows_and_lose_none(folder):
    path = folder / "joined" / "train.parquet"
    targets = [
        batch["205"].tolist()
        for rank in range(2)
        for batch in rows_loader(path, 64, 0, rank, world_size=2)
    ]
    everything = [row["205"] for row in expected_rows(folder / "tables", "train")]
    assert sorted(sum(targets, [])) == sorted(everything)
