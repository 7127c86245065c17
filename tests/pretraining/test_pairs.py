"""Pools of distinct contents, usable pairs, and how batches split over ranks."""

import numpy as np
import pytest
import torch

from torchrec_mm.data.item_content import Texts
from torchrec_mm.pretraining.pairs import ContentPool, make_pairs, rank_batches

TITLES = Texts(["shoe", None, "hat", "shoe"])
QUERIES = Texts(["hat", "boot", None, "boot", "cap"])


def test_equal_contents_of_items_and_queries_share_one_number():
    pool = ContentPool(TITLES, QUERIES)
    assert pool.item_contents.tolist() == [0, -1, 1, 0]
    assert pool.query_contents.tolist() == [1, 2, -1, 2, 3]
    assert len(pool) == 4 and pool.lengths.tolist() == [4, 3, 4, 3]


@pytest.mark.parametrize("wanted", [[0, 1, 2, 3], [3, 0, 2, 1, 1], [2, 0], []])
def test_contents_load_in_the_order_asked_for_whichever_side_holds_them(wanted):
    loaded = ContentPool(TITLES, QUERIES).load(np.array(wanted, dtype=np.int64))
    assert loaded == [["shoe", "hat", "boot", "cap"][i] for i in wanted]


def test_a_search_lacking_the_modality_on_either_side_is_left_out():
    pool = ContentPool(TITLES, QUERIES)
    purchased = np.array([0, 1, 2, 2, 3])
    hard = np.array([[2, 1], [0, -1], [0, 3], [-1, -1], [0, 2]])
    pairs = make_pairs(pool, purchased, hard, searches=np.array([0, 1, 2, 3]))
    assert pairs.query.tolist() == [1, 2]  # search 1 bought an untitled item, 2 has no text
    assert pairs.positive.tolist() == [0, 1]
    assert pairs.hard.tolist() == [[1, -1], [-1, -1]]  # item 1 has no title to be a negative by


def test_a_batch_holds_one_input_for_each_hard_negative():
    pool = ContentPool(TITLES, QUERIES)
    hard = np.array([[2, -1], [0, 3], [-1, -1], [-1, -1], [-1, -1]])
    pairs = make_pairs(pool, np.array([0, 2, 0, 0, 0]), hard, searches=np.array([0, 1]))
    batch = pairs.batch(np.array([1, 0]), pool.load, torch.device("cpu"))
    assert (batch.query, batch.positive) == (["boot", "hat"], ["hat", "shoe"])
    assert batch.hard == ["shoe", "shoe", "hat"]
    assert batch.hard_mask.tolist() == [[True, True], [True, False]]
    assert batch.positive_ids.tolist() == [1, 0] and batch.query_ids.tolist() == [2, 1]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batches_are_the_same_however_many_ranks_share_them(world_size):
    alone = rank_batches(50, 8, seed=3, rank=0, world_size=1)
    shares = [rank_batches(50, 8, 3, rank, world_size) for rank in range(world_size)]
    together = [np.concatenate(parts).tolist() for parts in zip(*shares, strict=True)]
    assert together == [batch.tolist() for batch in alone]
    assert len(together) == 6 and len(set(sum(together, []))) == 48


def test_each_seed_shuffles_differently():
    first, again, other = (rank_batches(50, 50, seed, 0, 1)[0].tolist() for seed in (1, 1, 2))
    assert first == again != other
