"""Pooled bags: kernel and reference against lists, forward and backward."""

import pytest
import torch

from torchrec_mm.kernels.pool_bags import (
    PooledBags,
    distinct_rows,
    pool_bags,
    pool_bags_reference,
)

WAYS = pytest.mark.parametrize("way", [pool_bags, pool_bags_reference])
# Of two features of one table, and one of another: three bags each.
BAGS = [[[0, 1], [], [2]], [[1, 1, 0], [2], []], [[3, 4], [4], [3, 3, 3, 4]]]
MEANS = [True, True, False]


def bags() -> PooledBags:
    flat = [bag for feature in BAGS for bag in feature]
    return PooledBags(
        torch.tensor(sum(flat, [])),
        torch.tensor([len(bag) for bag in flat], dtype=torch.int32),
        torch.tensor(MEANS).int(),
        torch.tensor([0, 0, 1]).int(),
        2,
    )


def rows() -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)


@WAYS
def test_each_bag_is_the_sum_or_the_mean_of_its_rows(way):
    given, found = rows(), way(rows(), bags())
    for place, feature in enumerate(BAGS):
        for number, bag in enumerate(feature):
            expected = given[bag].sum(0) / (max(len(bag), 1) if MEANS[place] else 1)
            got = found[number, 3 * place : 3 * place + 3]
            torch.testing.assert_close(got, expected)


@WAYS
def test_a_row_gets_the_gradients_of_all_bags_that_hold_it(way):
    given = rows()
    gradient = torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    way(given, bags()).backward(gradient)
    expected = torch.zeros(5, 3)
    for place, feature in enumerate(BAGS):
        for number, bag in enumerate(feature):
            for row in bag:
                by = len(bag) if MEANS[place] else 1
                expected[row] += gradient[number, 3 * place : 3 * place + 3] / by
    torch.testing.assert_close(given.grad, expected)


def test_threads_change_no_bit():
    found = []
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        given = rows()
        out = pool_bags(given, bags())
        out.backward(torch.ones_like(out))
        found.append((out, given.grad))
    torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@WAYS
def test_bags_without_a_value_are_zeros(way):
    empty = PooledBags(
        torch.empty(0, dtype=torch.int64),
        torch.zeros(4, dtype=torch.int32),
        torch.tensor([0, 1]).int(),
        torch.tensor([0, 1]).int(),
        2,
    )
    given = torch.empty(0, 3, requires_grad=True)
    found = way(given, empty)
    found.sum().backward()
    assert found.shape == (2, 6) and not found.any() and given.grad.shape == (0, 3)


def test_features_of_one_table_have_each_row_once():
    ids = torch.tensor([7, 8, 7, 8, 9, 7, 5])
    rows, places = distinct_rows(ids, torch.tensor([3, 2, 2]), torch.tensor([0, 0, 1]), 2)
    assert [each.tolist() for each in rows] == [[7, 8, 9], [7, 5]]
    assert [each.tolist() for each in places] == [[0, 1, 0], [1, 2], [0, 1]]
