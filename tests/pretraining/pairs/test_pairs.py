"""Who should find whom in each way of training, and how batches split over ranks."""

import numpy as np
import pytest

from torchrec_mm.pretraining.pairs.pairs import (
    CoClickPairs,
    PairSet,
    clip_pairs,
    co_click_pairs,
    epoch_order,
    rank_share,
    scl_pairs,
)

# Items 0 to 3, then searches 0 to 4 in rows 4 to 8.
N = 4
PURCHASED = np.array([0, 1, 2, 2, 3])
HARD = np.array([[2, 1], [0, -1], [0, 3], [-1, -1], [0, 2]])
TITLED = np.array([1, 0, 1, 1, 1, 1, 0, 1, 1], dtype=bool)  # not item 1 and search 2
PICTURED = np.array([1, 1, 0, 1, 0, 1, 0, 1, 1], dtype=bool)  # not item 2, searches 0 and 2
TEXT, BOTH = {"text": TITLED}, {"image": PICTURED, "text": TITLED}
ALL = np.arange(5)


def made(make, searches=ALL, present=BOTH):
    return make(PURCHASED.copy(), HARD.copy(), N, np.array(searches), present)


def test_a_search_finds_what_was_bought_and_not_what_was_only_clicked():
    pairs = made(scl_pairs, [4, 0])
    assert (pairs.queries.tolist(), pairs.keys.tolist()) == ([8, 4], [3, 0])
    assert pairs.hard.tolist() == [[0, 2], [2, 1]]


def test_a_search_lacking_the_only_modality_on_either_side_is_left_out():
    pairs = made(scl_pairs, [0, 1, 2, 3], TEXT)
    assert pairs.queries.tolist() == [4, 7]  # search 1 bought an untitled item, 2 has no text
    assert pairs.keys.tolist() == [0, 2]
    assert pairs.hard.tolist() == [[2, -1], [-1, -1]]  # item 1 has no title to be a negative by


def test_with_both_modalities_a_text_alone_may_find_a_picture_alone():
    present = {"image": np.array([True, False]), "text": np.array([False, True])}
    pairs = scl_pairs(np.array([0]), np.empty((1, 0), int), 1, np.array([0]), present)
    assert (pairs.queries.tolist(), pairs.keys.tolist(), pairs.hard.shape) == ([1], [0], (1, 0))


def test_with_both_modalities_a_search_with_neither_is_left_out():
    assert made(scl_pairs).queries.tolist() == [4, 5, 7, 8]


def test_an_item_with_both_modalities_finds_itself():
    pairs = clip_pairs(N, BOTH)
    assert pairs.queries.tolist() == pairs.keys.tolist() == [0, 3]
    assert pairs.hard.shape == (2, 0)


def test_a_bought_item_finds_one_item_clicked_in_the_same_search():
    pairs = made(co_click_pairs)
    assert len(pairs) == 4  # search 3 has no clicked item
    for epoch in range(20):
        of_epoch = pairs.of_epoch(epoch=epoch, seed=0)
        assert of_epoch.queries.tolist() == [0, 1, 2, 3] and of_epoch.hard.shape == (4, 0)
        for row, clicked in zip(of_epoch.keys, ([2, 1], [0], [0, 3], [0, 2]), strict=True):
            assert row in clicked


def test_each_clicked_item_is_the_key_equally_often_whatever_slots_are_empty():
    clicked = np.tile([-1, 5, -1, 6, 7], (9000, 1))
    keys = CoClickPairs(np.zeros(9000, int), clicked).of_epoch(epoch=3, seed=1).keys
    assert set(keys) == {5, 6, 7}
    assert all(2800 < (keys == item).sum() < 3200 for item in (5, 6, 7))


def test_the_clicked_items_of_an_epoch_depend_on_seed_and_epoch_alone():
    pairs = CoClickPairs(np.zeros(50, int), np.tile([1, 2, 3], (50, 1)))
    first, again, *others = (
        pairs.of_epoch(epoch=epoch, seed=seed).keys.tolist()
        for epoch, seed in [(1, 0), (1, 0), (2, 0), (1, 1)]
    )
    assert first == again and all(first != other for other in others)


def test_an_unseen_clicked_item_without_content_is_no_pair():
    assert made(co_click_pairs, [0, 1], TEXT).clicked.tolist() == [[2, -1]]


def test_no_pair_holds_a_held_out_item():
    held_out = np.array([False, False, True, False])
    scl = made(scl_pairs).without_items(held_out)
    assert (scl.queries.tolist(), scl.keys.tolist()) == ([4, 5, 8], [0, 1, 3])
    assert scl.hard.tolist() == [[-1, 1], [0, -1], [0, -1]]
    assert clip_pairs(N, BOTH).without_items(~held_out).queries.tolist() == []
    assert clip_pairs(N, BOTH).without_items(held_out).queries.tolist() == [0, 3]
    co_click = made(co_click_pairs).without_items(held_out)
    assert co_click.bought.tolist() == [0, 1, 3]
    assert co_click.clicked.tolist() == [[-1, 1], [0, -1], [0, -1]]


def test_an_item_to_item_pair_goes_with_either_of_its_items():
    pairs = PairSet(np.array([0, 1, 2]), np.array([1, 2, 3]), np.empty((3, 0), int))
    left = pairs.without_items(np.array([True, False, False, False]))
    assert left.queries.tolist() == [1, 2]
    left = pairs.without_items(np.array([False, False, False, True]))
    assert left.queries.tolist() == [0, 1]


def test_a_search_whose_clicked_items_are_all_held_out_gives_no_item_pair():
    held_out = np.array([True, False, False, False])
    assert made(co_click_pairs).without_items(held_out).bought.tolist() == [2, 3]


def test_holding_items_out_leaves_the_pairs_before_as_they_were():
    pairs, before = made(scl_pairs), made(scl_pairs)
    pairs.without_items(np.array([False, False, True, False]))
    assert pairs.hard.tolist() == before.hard.tolist()
    assert pairs.of_epoch(epoch=1, seed=0) is pairs


@pytest.mark.parametrize("make", [scl_pairs, co_click_pairs])
def test_the_packed_content_is_never_written_to(make):
    purchased, hard = PURCHASED.copy(), HARD.copy()
    for array in (purchased, hard):
        array.flags.writeable = False
    make(purchased, hard, N, ALL, TEXT).without_items(np.ones(N, dtype=bool))


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_global_batches_are_the_same_however_many_ranks_share_them(world_size):
    order = epoch_order(50, seed=3, epoch=1)
    for step in range(6):
        shares = [
            rank_share(order, step=step, batch_size=8, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        assert np.concatenate(shares).tolist() == order[step * 8 : step * 8 + 8].tolist()
        assert len({len(each) for each in shares}) == 1


def test_an_epoch_takes_each_pair_once_and_leaves_the_incomplete_batch_out():
    order = epoch_order(50, seed=3, epoch=1)
    assert sorted(order) == list(range(50))
    with pytest.raises(ValueError, match=r"step must be in \[0, 6\), got 6"):
        rank_share(order, step=6, batch_size=8, rank=0, world_size=1)


def test_a_batch_that_does_not_split_over_the_ranks_is_refused():
    with pytest.raises(ValueError, match="batch_size must be a multiple of 3, got 8"):
        rank_share(np.arange(50), step=0, batch_size=8, rank=0, world_size=3)


def test_each_seed_and_epoch_shuffles_differently():
    first, again, *others = (
        epoch_order(50, seed=seed, epoch=epoch).tolist()
        for seed, epoch in [(1, 1), (1, 1), (2, 1), (1, 2)]
    )
    assert first == again and all(first != other for other in others)
