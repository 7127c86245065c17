"""Bags pooled out of tables: kernel and reference against a loop, look-up and what is learned."""

import numpy as np
import pytest
import torch
from torch import Tensor

from torchrec_mm.kernels.bag_tables import TableBags, pool_tables
from torchrec_mm.kernels.build import plain_versions
from torchrec_mm.kernels.one_id_bags import Tables

RATE, EPS = 0.3, 1e-8
# Of two features of one table, and one of another: three bags each.
BAGS = [[[0, 1], [], [2]], [[1, 1, 0], [2], []], [[3, 4], [4], [3, 3, 3, 4]]]
MEANS, TABLE = [True, True, False], [0, 0, 1]


@pytest.fixture(params=["compiled", "plain"])
def way(request):
    if request.param == "compiled":
        yield
        return
    with plain_versions():
        yield


def tables(rows: int = 5, width: int = 3) -> Tables:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(rows, width, generator=generator) for _ in range(2)]
    return Tables(weights, [torch.zeros(rows) for _ in range(2)], [torch.tensor(RATE)] * 2, EPS)


def table_bags(bags=BAGS) -> TableBags:
    flat = [bag for feature in bags for bag in feature]
    return TableBags(
        torch.tensor(sum(flat, []), dtype=torch.int64),
        torch.tensor([len(bag) for bag in flat], dtype=torch.int32),
        torch.tensor(MEANS).int(),
        torch.tensor(TABLE).int(),
    )


def expected(given: Tables, gradient: Tensor, bags=BAGS) -> tuple[Tensor, list[Tensor]]:
    """What is looked up, and the weights afterwards."""
    width = given.width
    out = torch.zeros(len(bags[0]), len(bags) * width)
    sums = [torch.zeros_like(weight) for weight in given.weights]
    for place, feature in enumerate(bags):
        columns = slice(place * width, (place + 1) * width)
        for number, bag in enumerate(feature):
            by = 1 / len(bag) if MEANS[place] and bag else 1.0
            for row in bag:
                out[number, columns] += by * given.weights[TABLE[place]][row]
                sums[TABLE[place]][row] += by * gradient[number, columns]
    learned = [
        weight - RATE * total / (total.square().mean(1, keepdim=True).sqrt() + EPS)
        for weight, total in zip(given.weights, sums, strict=True)
    ]
    return out, learned


def test_bags_are_pooled_and_their_rows_learn_once_by_the_sum_of_their_gradients(way):
    given = tables()
    gradient = torch.randn(3, 9, generator=torch.Generator().manual_seed(1))
    out, learned = expected(given, gradient)
    found = pool_tables(given, table_bags())
    torch.testing.assert_close(found, out)
    found.backward(gradient)
    for weight, after in zip(given.weights, learned, strict=True):
        torch.testing.assert_close(weight, after)


def drawn(seed: int) -> list[list[list[int]]]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(9, size=(3, 200))
    return [[generator.integers(500, size=n).tolist() for n in of] for of in lengths]


def test_threads_change_no_bit():
    found = []
    threads = torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        given = tables(500, 16)
        out = pool_tables(given, table_bags(drawn(0)))
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)))
        found.append([out.detach(), *given.weights, *given.momentum])
    torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))


def test_many_rows_learn_as_few_do(way):
    given, bags = tables(500, 16), drawn(1)
    gradient = torch.randn(200, 48, generator=torch.Generator().manual_seed(1))
    out, learned = expected(given, gradient, bags)
    found = pool_tables(given, table_bags(bags))
    torch.testing.assert_close(found, out)
    found.backward(gradient)
    for weight, after in zip(given.weights, learned, strict=True):
        torch.testing.assert_close(weight, after, rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_columns_of_a_wider_one_is_read_where_it_lies(way):
    given, same = tables(), tables()
    wide = torch.randn(3, 20, generator=torch.Generator().manual_seed(1))
    pool_tables(given, table_bags()).backward(wide[:, 5:14])
    pool_tables(same, table_bags()).backward(wide[:, 5:14].contiguous())
    assert all(map(torch.equal, given.weights, same.weights))


def test_empty_bags_are_zeros_and_teach_nothing(way):
    given, before = tables(), tables()
    out = pool_tables(given, table_bags([[[], []]] * 3))
    assert out.shape == (2, 9) and not out.any()
    out.backward(torch.ones(2, 9))
    assert all(map(torch.equal, given.weights, before.weights))


@pytest.mark.parametrize("row", [5, -1])
def test_an_id_that_is_no_row_is_refused(row, way):
    with pytest.raises(IndexError):
        pool_tables(tables(), table_bags([[[0], []], [[], []], [[], [row]]]))
