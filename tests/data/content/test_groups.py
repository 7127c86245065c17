"""Groups of items: components as union-find says, held out whole."""

import numpy as np
import pytest

from torchrec_mm.data.content.groups import connected, hold_out_groups


def union_find(alike: list[np.ndarray]) -> list[int]:
    parent = list(range(len(alike[0])))

    def root(item: int) -> int:
        while parent[item] != item:
            item = parent[item]
        return item

    for other in alike:
        for item, same in enumerate(other.tolist()):
            a, b = sorted((root(item), root(same)))
            parent[b] = a
    return [root(item) for item in range(len(parent))]


@pytest.mark.parametrize("seed", range(20))
def test_components_are_those_of_union_find(seed):
    generator = np.random.default_rng(seed)
    number = int(generator.integers(1, 60))
    alike = []
    for _ in range(generator.integers(1, 3)):
        other = np.arange(number)
        some = generator.random(number) < 0.4
        other[some] = generator.integers(0, number, some.sum())
        alike.append(other)
    assert connected(alike).tolist() == union_find(alike)


def test_a_long_chain_is_one_component_after_few_rounds():
    order = np.random.default_rng(0).permutation(300_000)
    chain = np.arange(len(order))
    chain[order[1:]] = order[:-1]
    assert not connected([chain]).any()


def test_groups_are_held_out_whole_and_about_as_many_as_wanted():
    group = np.repeat(np.arange(0, 900, 3), 3)
    held_out = hold_out_groups(group, np.arange(900), 0.1)
    assert held_out.sum() == 90
    assert (held_out.reshape(-1, 3).sum(axis=1) % 3 == 0).all()


@pytest.mark.parametrize(("share", "held"), [(0.12, 10), (0.13, 15), (0.5, 50)])
def test_the_number_held_out_is_the_nearest_to_the_share_that_whole_groups_allow(share, held):
    group = np.repeat(np.arange(0, 100, 5), 5)
    assert hold_out_groups(group, np.arange(100), share).sum() == held


def test_a_group_larger_than_the_share_is_never_held_out():
    group = np.where(np.arange(100) < 40, 0, np.arange(100))
    held_out = hold_out_groups(group, np.arange(100), 0.3)
    assert held_out.sum() == 30 and not held_out[:40].any()
    assert not hold_out_groups(np.zeros(10, int), np.arange(10), 0.3).any()


def test_which_are_held_out_hangs_on_ids_and_not_on_their_order():
    ids = np.arange(2000) - 1000
    held_out = hold_out_groups(np.arange(2000), ids, 0.25)
    assert 0.2 < held_out[:1000].mean() < 0.3
    elsewhere = hold_out_groups(np.arange(1000), ids[1000:], 0.25)
    assert (elsewhere == held_out[1000:]).mean() > 0.95
