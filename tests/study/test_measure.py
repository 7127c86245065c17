"""What a study counts by itself: users by how active they were in training."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.errors import InputError
from torchrec_mm.files import write_json
from torchrec_mm.study.measure import THIRDS, Activity, phase_one


@pytest.fixture
def data(tmp_path):
    """Users 1 to 6; user n is in training n - 1 times."""
    folder = tmp_path / "data" / "requests" / "train"
    folder.mkdir(parents=True)
    users = [user for user in range(1, 7) for _ in range(user - 1)]
    pq.write_table(pa.table({"user_id": users}), folder / "part.parquet")
    return tmp_path / "data"


def test_users_fall_into_thirds_by_their_requests_in_training(data, tmp_path):
    """The least active third is ranked rightly, the middle wrongly, the most active ones tie."""
    right, wrong, tie = (0.0, 1.0), (1.0, 0.0), (0.5, 0.5)
    logits = [*right, *right, *wrong, *wrong, *tie, *tie]
    columns = {
        "user_id": np.repeat([2, 1, 4, 3, 6, 5], 2),
        "label": np.tile([0, 1], 6).astype(np.int8),
        "logit": np.array(logits, np.float32),
    }
    pq.write_table(pa.table(columns), tmp_path / "predictions.parquet")
    found = Activity(data).gaucs(tmp_path / "predictions.parquet")
    assert found == dict(zip(THIRDS, (1.0, 0.0, 0.5), strict=True))


def test_a_third_without_both_labels_has_no_figure(data, tmp_path):
    columns = {"user_id": [1, 5, 6], "label": [1, 1, 0], "logit": [0.1, 0.2, 0.3]}
    pq.write_table(pa.table(columns), tmp_path / "predictions.parquet")
    assert set(Activity(data).gaucs(tmp_path / "predictions.parquet").values()) == {None}


def test_phase_one_is_the_mean_over_an_encoders_runs(tmp_path):
    for seed, recall in enumerate((0.25, 0.75)):
        figures = {"encoder": "scl", "recall@10": recall, "mrr": 0.5}
        write_json(tmp_path / str(seed) / "retrieval.json", figures)
    assert phase_one(None) == {}
    found = phase_one(tmp_path)["scl"]
    assert (found["recall@10"], found["mrr"], found["recall@1"]) == (0.5, 0.5, None)


def test_a_folder_without_an_encoder_is_refused(tmp_path):
    with pytest.raises(InputError, match="found none"):
        phase_one(tmp_path)
