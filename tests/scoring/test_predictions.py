"""Predictions: impressions in their order on disk, whoever scored them."""

import math
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from torchrec_mm.scoring import prediction_files
from torchrec_mm.scoring.prediction_files import (
    PER_IMPRESSION,
    RankPredictions,
    impression_rows,
    merge_predictions,
    probabilities,
)
from torchrec_mm.scoring.predictions import Scored, predict, shared_folder

ROW_BYTES = 8 + 8 + 8 + 1 + 4


def scored(requests, seed=0) -> Scored:
    """One to four impressions of each request; the logit tells them apart."""
    requests = np.array(requests, np.int64)
    lengths = requests % 4 + 1
    logits = np.concatenate([r + np.arange(n) / 8 for r, n in zip(requests, lengths, strict=True)])
    labels = (logits * 8 % 2).astype(np.int8)
    return Scored(requests, lengths, labels, logits.astype(np.float32))


def add(file: RankPredictions, part: Scored) -> None:
    ids = np.repeat(part.requests, part.lengths)
    file.add(impression_rows(part, 100 + ids, 1000 + ids))


def test_a_request_without_an_impression_is_dropped():
    found = Scored.of_batch(
        torch.tensor([3.0, 5.0, 6.0], dtype=torch.float64),
        torch.tensor([1.0, 1.0, 0.0]),
        torch.tensor([0, 1, 1, 3]),
        torch.tensor([0, 1, 2]),
    )
    assert found.requests.tolist() == [0, 2]
    assert found.lengths.tolist() == [1, 2]
    assert found.logits.tolist() == [3.0, 5.0, 6.0]
    assert found.labels.tolist() == [1, 1, 0]
    assert (found.labels.dtype, found.logits.dtype) == ("int8", "float32")


class DropsOut(torch.nn.Module):
    """Logits of two requests, half of them zero in training."""

    def forward(self, batch):
        logits = torch.nn.functional.dropout(torch.ones(1000), 0.5, self.training)
        return None, (None, logits, logits, torch.tensor([0, 500, 1000]), torch.arange(2))


def test_scoring_drops_nothing_out_and_leaves_the_model_training(worker):
    distributed = SimpleNamespace(model=DropsOut(), worker=worker)
    loader = SimpleNamespace(epoch=lambda _: [torch.zeros(1)] * 2)
    parts = list(predict(distributed, loader))
    assert [part.logits.tolist() for part in parts] == [[1.0] * 1000] * 2
    assert distributed.model.training


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=60),
    st.integers(1, 9),
    st.integers(1, 40 * ROW_BYTES),
)
@example([0, 1, 2, 0, 2, 2, 2, 2, 2, 0, 1, 1], 2, 1)  # 9 lies on disk when 10 is in memory
def test_ranks_are_merged_in_the_order_of_the_data_set(
    tmp_path_factory, rank_of_request, batch, row_group
):
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_files, "ROW_GROUP_BYTES", row_group)
        for rank in range(3):
            with RankPredictions(folder, rank) as file:
                mine = [r for r, owner in enumerate(rank_of_request) if owner == rank]
                for start in range(0, len(mine), batch):
                    add(file, scored(mine[start : start + batch]))
        merge_predictions(folder, folder / "out" / "p.parquet", PER_IMPRESSION)
    whole = scored(range(len(rank_of_request)))
    ids = np.repeat(whole.requests, whole.lengths)
    table = pq.read_table(folder / "out" / "p.parquet").to_pydict()
    assert table == {
        "request": ids.tolist(),
        "user_id": (100 + ids).tolist(),
        "item_id": (1000 + ids).tolist(),
        "label": whole.labels.tolist(),
        "logit": whole.logits.tolist(),
    }


def test_merging_holds_a_few_row_groups_of_each_rank(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_files, "ROW_GROUP_BYTES", 100 * ROW_BYTES)
    for rank in range(2):
        with RankPredictions(tmp_path, rank) as file:
            for request in range(rank, 2000, 2):
                add(file, scored([request]))
    merge_predictions(tmp_path, tmp_path / "out" / "p.parquet", PER_IMPRESSION)
    written = pq.ParquetFile(tmp_path / "out" / "p.parquet").metadata
    rows = [written.row_group(i).num_rows for i in range(written.num_row_groups)]
    assert sum(rows) == sum(r % 4 + 1 for r in range(2000))
    assert max(rows) <= 100 and sum(rows) / len(rows) > 50


@pytest.mark.parametrize("later", [[5, 4], [3], [2, 6]])
def test_requests_out_of_order_are_refused(later, tmp_path):
    with RankPredictions(tmp_path, 0) as file:
        add(file, scored([1, 3]))
        with pytest.raises(ValueError, match="requests must ascend, got . too late"):
            add(file, scored(later))


def test_the_shared_folder_is_gone_afterwards_whatever_happens(worker, tmp_path):
    with pytest.raises(KeyError), shared_folder(tmp_path / "new", worker) as folder:
        assert folder == tmp_path / "new" and not list(folder.iterdir())
        (folder / "some").write_text("thing")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_the_shared_folder_holds_nothing_of_a_process_that_was_killed(worker, tmp_path):
    (tmp_path / "00007.parquet").write_text("of another number of ranks")
    with shared_folder(tmp_path, worker) as folder:
        assert not list(folder.iterdir())


def test_probabilities_keep_their_digits_at_both_ends():
    logits = np.array([-80, -5, 0, 5, 80], np.float32)
    wanted = [1 / (1 + math.exp(-logit)) for logit in logits.tolist()]
    assert probabilities(logits).tolist() == pytest.approx(wanted, rel=1e-6)
    assert probabilities(logits).dtype == np.float32
