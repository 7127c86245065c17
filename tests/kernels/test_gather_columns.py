"""Rows side by side: kernel and reference against lists, forward and backward."""

import pytest
import torch

from torchrec_mm.kernels import gather_columns as module
from torchrec_mm.kernels.gather_columns import gather_columns, gather_columns_reference

WAYS = pytest.mark.parametrize("way", [gather_columns, gather_columns_reference])
COLUMNS = [(0, 0), (1, 3), (1, 0)]


def sources() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 3), (5, 6))
    return [torch.randn(s, generator=generator, requires_grad=True) for s in shapes]


def index_of(rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    most = ((7,), (5,), (5,))
    parts = [torch.randint(0, n, (rows,), generator=generator) for (n,) in most]
    return torch.stack(parts).int()


@WAYS
def test_each_row_is_the_rows_of_its_tables_one_after_another(way):
    tables, index = sources(), index_of(20)
    rows = way(tables, COLUMNS, index, 3).tolist()
    for n, row in enumerate(rows):
        expected = []
        for (source, start), at in zip(COLUMNS, index[:, n].tolist(), strict=True):
            expected += tables[source].tolist()[at][start : start + 3]
        assert row == expected


@WAYS
def test_a_row_gets_the_sum_of_the_gradients_of_its_places(way):
    tables, index = sources(), index_of(20)
    gradient = torch.randn(20, 9, generator=torch.Generator().manual_seed(2))
    way(tables, COLUMNS, index, 3).backward(gradient)
    expected = [torch.zeros_like(table) for table in tables]
    for n in range(20):
        for f, (source, start) in enumerate(COLUMNS):
            expected[source][index[f, n], start : start + 3] += gradient[n, 3 * f : 3 * f + 3]
    for table, sums in zip(tables, expected, strict=True):
        torch.testing.assert_close(table.grad, sums)


@WAYS
def test_a_gradient_may_lie_in_memory_in_any_way(way):
    found = []
    for weight in (torch.ones(20, 9), torch.ones(()).expand(20, 9), torch.ones(9, 20).T):
        tables = sources()
        way(tables, COLUMNS, index_of(20), 3).backward(weight)
        found.append([table.grad for table in tables])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_gradient_of_the_kernels_gradient_is_refused_not_wrong():
    tables = sources()
    loss = gather_columns(tables, COLUMNS, index_of(20), 3).square().sum()
    gradients = torch.autograd.grad(loss, tables, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradients[0].sum().backward()


def test_tables_of_another_precision_keep_it():
    tables = [table.detach().double() for table in sources()]
    rows = gather_columns(tables, COLUMNS, index_of(20), 3)
    assert rows.dtype == torch.float64
    assert torch.equal(rows, gather_columns_reference(tables, COLUMNS, index_of(20), 3))


@WAYS
def test_no_rows_and_no_tables_give_empty_results(way):
    tables = sources()
    assert way(tables, COLUMNS, index_of(0), 3).shape == (0, 9)
    assert way(tables, [], torch.zeros(0, 4, dtype=torch.int32), 3).shape == (4, 0)


def test_gradients_do_not_depend_on_the_number_of_threads():
    index = index_of(1000)
    gradient = torch.randn(1000, 9, generator=torch.Generator().manual_seed(2))
    found = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        tables = sources()
        gather_columns(tables, COLUMNS, index, 3).backward(gradient)
        found.append([table.grad for table in tables])
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_the_kernel_is_what_runs_on_the_cpu():
    assert module.compiled("gather_columns") is not None
