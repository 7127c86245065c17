"""Splits of a study: nothing of the test split is trained on, and validation is cut as test was."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchrec_mm.study.splits import cut, is_last, read_users


def data_of(folder: Path, train: dict, test: dict) -> Path:
    """A data set of some users and times; each request tells its number as its candidate."""
    for split, columns in (("train", train), ("test", test)):
        path = folder / "requests" / split
        path.mkdir(parents=True)
        count = len(columns["user_id"])
        table = pa.table({**columns, "candidate_item_ids": [[n] for n in range(count)]})
        half = count // 2
        pq.write_table(table.slice(0, half), path / "a.parquet")
        pq.write_table(table.slice(half), path / "b.parquet")
    (folder / "items").mkdir()
    (folder / "features.yaml").write_text("{}")
    return folder


def numbers(folder: Path, split: str) -> list[int]:
    table = pq.read_table(folder / "requests" / split)
    return [candidates[0] for candidates in table["candidate_item_ids"].to_pylist()]


USERS = [1, 2, 1, 2, 1, 1, 2, 2, 1, 2]


@pytest.fixture
def mixed(tmp_path):
    """Users whose own last requests are tested, so that times of both splits overlap."""
    times = [9, 1, 2, 3, 4, 5, 6, 7, 8, 5]
    return data_of(
        tmp_path / "mixed",
        {"user_id": USERS, "timestamp": times},
        {"user_id": [1, 2], "timestamp": [10, 8]},
    )


def test_where_users_were_cut_each_users_last_requests_validate(mixed):
    assert np.flatnonzero(is_last(mixed, 0.4)).tolist() == [0, 6, 7, 8]


def test_where_time_was_cut_the_last_requests_of_all_validate(tmp_path):
    data = data_of(
        tmp_path / "data",
        {"user_id": USERS, "timestamp": list(range(10))},
        {"user_id": [1, 2], "timestamp": [9, 12]},
    )
    assert np.flatnonzero(is_last(data, 0.3)).tolist() == [7, 8, 9]


def test_without_timestamps_the_order_is_that_of_time(tmp_path):
    data = data_of(tmp_path / "data", {"user_id": USERS}, {"user_id": [1, 2]})
    assert np.flatnonzero(is_last(data, 0.4)).tolist() == [5, 7, 8, 9]


def test_a_user_of_one_request_keeps_it_in_training(tmp_path):
    data = data_of(tmp_path / "data", {"user_id": [4, 5, 6]}, {"user_id": [1, 2]})
    assert not is_last(data, 0.5).any()


def test_what_validates_is_cut_out_of_training_and_test_is_not_read(mixed, tmp_path):
    cut(mixed, tmp_path / "fit", share=1.0, validation=0.4)
    assert numbers(tmp_path / "fit", "train") == [1, 2, 3, 4, 5, 9]
    assert numbers(tmp_path / "fit", "test") == [0, 6, 7, 8]
    assert (tmp_path / "fit" / "items").is_dir() and (tmp_path / "fit" / "features.yaml").is_file()


def test_a_share_of_training_keeps_the_test_split_and_the_validation_split(mixed, tmp_path):
    cut(mixed, tmp_path / "half", share=0.5, validation=None)
    cut(mixed, tmp_path / "fit", share=0.5, validation=0.4)
    assert 0 < len(read_users(tmp_path / "half" / "requests" / "train")) < 10
    assert numbers(tmp_path / "half", "test") == [0, 1]
    assert numbers(tmp_path / "fit", "test") == [0, 6, 7, 8]
    within = set(numbers(tmp_path / "half", "train"))
    assert set(numbers(tmp_path / "fit", "train")) <= within
