"""The rows that the short benchmark's baseline reads."""

import json

import pytest
import torch

from torchrec_mm.benchmarks.ranking.short_rows import JoinedRows, RowBatches, rows_loader
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.parallel.process_group import Worker

LENGTH = 12


def expected_rows(folder, split):
    """The join, one impression at a time."""
    data = EncodedRequests(folder / "encoded", split)
    item, category = data.items.rows + 1
    for group in data.groups:
        requests = data.read(group)
        labels = iter(requests.labels.tolist())
        for r in range(len(requests)):
            targets = slice(*requests.candidates.offsets[r : r + 2])
            past = slice(*requests.behaviours.offsets[r : r + 2])
            past = requests.behaviours.values[past].tolist()
            padding = [0] * (LENGTH - len(past))
            for target in requests.candidates.values[targets].tolist():
                yield {
                    "user": requests.user_ids[r],
                    "user_id": requests.request_rows["user_id"][r] + 1,
                    "item_id": item[target],
                    "category": category[target],
                    "history_item_id": [item[i] for i in past] + padding,
                    "history_category": [category[i] for i in past] + padding,
                    "label": next(labels),
                }


@pytest.mark.parametrize("split", ["train", "test"])
def test_each_impression_holds_its_users_history_and_its_items_attribute(short_folder, split):
    rows = JoinedRows(short_folder / "joined" / f"{split}.parquet")
    expected = list(expected_rows(short_folder, split))
    assert len(rows) == len(expected) > 0
    for name in expected[0]:
        assert rows.columns[name].tolist() == [row[name] for row in expected], name
    assert {
        column.dtype for name, column in rows.columns.items() if name not in ("user", "label")
    } == {torch.int32}
    assert rows.columns["label"].dtype == torch.float32


def test_tables_have_a_row_for_every_id_and_one_for_padding(short_folder):
    num_rows = json.loads((short_folder / "joined" / "num_rows.json").read_text())
    data = EncodedRequests(short_folder / "encoded", "train")
    assert num_rows == {name: rows + 1 for name, rows in data.num_rows.items()}


def test_an_epoch_has_every_row_once_and_another_order_than_the_last():
    batches = RowBatches(10, 4, torch.Generator().manual_seed(0))
    epochs = [[batch.tolist() for batch in batches] for _ in range(2)]
    for epoch in epochs:
        assert [len(batch) for batch in epoch] == [4, 4, 2]
        assert sorted(sum(epoch, [])) == list(range(10))
    assert epochs[0] != epochs[1]


def test_without_a_generator_rows_keep_their_order():
    assert torch.cat(list(RowBatches(10, 4))).tolist() == list(range(10))


def test_ranks_take_as_many_steps_and_share_each_batch():
    ranks = [
        [batch.tolist() for batch in RowBatches(9, 4, torch.Generator().manual_seed(3), rank, 2)]
        for rank in range(2)
    ]
    whole = [batch.tolist() for batch in RowBatches(9, 4, torch.Generator().manual_seed(3))]
    assert [len(batches) for batches in ranks] == [2, 2]  # one row is too few for both
    for one, other, batch in zip(*ranks, whole, strict=False):
        assert len(one) == len(other) == 2 and sorted(one + other) == sorted(batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_is_its_rows(short_folder, workers):
    rows = JoinedRows(short_folder / "joined" / "train.parquet")
    loader = rows_loader(
        rows,
        32,
        workers,
        generator=torch.Generator().manual_seed(1),
        worker=Worker(torch.device("cpu"), 1, 2),
    )
    for _ in range(2):
        seen = {name: [] for name in rows.columns}
        for batch in loader:
            for name, values in batch.items():
                seen[name] += values.tolist()
        wanted = list(zip(*(column.tolist() for column in rows.columns.values()), strict=True))
        got = [*zip(*seen.values(), strict=True)]
        assert len(got) == pytest.approx(len(rows) / 2, abs=32)
        assert all(row in wanted for row in got)
