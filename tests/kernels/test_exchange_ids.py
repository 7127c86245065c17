"""Ids find the rank that holds their rows, and on that rank their table, whoever sorts them."""

import pytest
import torch
from torch import Tensor

from torchrec_mm.kernels import exchange_ids as module
from torchrec_mm.kernels.exchange_ids import Part, by_table, route

# Rows of three tables on three ranks: cut, whole on the second, and too few for the last.
ENDS = torch.tensor([[4, 8, 10], [0, 7, 7], [1, 2, 2]])


@pytest.fixture(params=["kernel", "plain torch"], autouse=True)
def way(request, monkeypatch):
    if request.param == "plain torch":
        monkeypatch.setattr(module, "compiled", lambda name: None)
    else:
        assert module.compiled("exchange_ids") is not None


def part(numbers: list[int], bags: list[list[list[int]]]) -> Part:
    """``bags``: by table, ids of each bag."""
    every = [ids for table in bags for ids in table]
    ids = torch.tensor([i for bag in every for i in bag], dtype=torch.int64)
    lengths = torch.tensor([len(bag) for bag in every], dtype=torch.int32)
    return Part(ids, lengths, torch.tensor(numbers))


def drawn(seed: int) -> list[Part]:
    """Two collections, some of whose bags are empty."""
    generator = torch.Generator().manual_seed(seed)

    def bag(table: int) -> list[int]:
        high = int(ENDS[table, -1])
        full = int(torch.randint(2, (1,), generator=generator))
        return torch.randint(high, (full,), generator=generator).tolist()

    counts = torch.randint(9, (2,), generator=generator).tolist()
    return [
        part(numbers, [[bag(number) for _ in range(count)] for number in numbers])
        for numbers, count in zip(([2, 0], [1]), counts, strict=True)
    ]


def looked_up(parts: list[Part], tables: list[Tensor]) -> Tensor:
    """What each bag holds, one after another as ``places`` count; 0 if it is empty."""
    found = []
    for own in parts:
        lengths = own.lengths.view(len(own.numbers), -1)
        rows = torch.zeros(lengths.shape, dtype=torch.int64)
        number = own.numbers[lengths.nonzero()[:, 0]].tolist()
        rows[lengths > 0] = torch.tensor(
            [int(tables[n][i]) for n, i in zip(number, own.ids.tolist(), strict=True)],
            dtype=torch.int64,
        )
        found.append(rows.T.flatten())
    return torch.cat(found)


@pytest.mark.parametrize("seed", range(8))
def test_rows_of_all_ranks_are_those_of_the_whole_tables(seed):
    tables = [torch.arange(1, int(end[-1]) + 1) + 100 * n for n, end in enumerate(ENDS)]
    parts = drawn(seed)
    sent = route(parts, ENDS)
    out = torch.zeros(sum(len(own.lengths) for own in parts), dtype=torch.int64)
    places, ids = (x.split(sent.counts.flatten().tolist()) for x in (sent.places, sent.ids))
    for at, (where, rows) in enumerate(zip(places, ids, strict=True)):
        rank, table = divmod(at, len(ENDS))
        begin = int(ENDS[table, rank - 1]) if rank else 0
        out[where] = tables[table][begin : int(ENDS[table, rank])][rows]
    assert torch.equal(out, looked_up(parts, tables))


def test_ids_of_a_rank_and_table_keep_their_order():
    sent = route([part([0, 1], [[[9], [0], []], [[6], [], [0]]])], ENDS)
    assert sent.counts.tolist() == [[1, 0, 0], [0, 2, 0], [1, 0, 0]]
    assert sent.ids.tolist() == [0, 6, 0, 1]
    assert sent.places.tolist() == [2, 1, 5, 0]


def test_what_came_is_found_by_table_in_the_order_of_ranks():
    order, begins = by_table(torch.tensor([[1, 0, 2], [2, 1, 0]]))
    assert order.tolist() == [0, 3, 4, 5, 1, 2]
    assert begins.tolist() == [0, 3, 4, 6]


def test_nothing_is_asked_for_with_empty_bags_alone():
    sent = route([part([0], [[[], []]]), part([1], [[]])], ENDS)
    assert sent.counts.tolist() == [[0, 0, 0]] * 3
    assert len(sent.ids) == len(sent.places) == 0
    order, begins = by_table(sent.counts)
    assert (len(order), begins.tolist()) == (0, [0, 0, 0, 0])


def test_a_bag_of_two_is_refused():
    with pytest.raises(ValueError, match="bags must hold one id at most"):
        route([part([0], [[[1], [2, 3]]])], ENDS)


@pytest.mark.parametrize("index", [-1, 7])
def test_an_id_beyond_its_table_is_refused(index):
    with pytest.raises(IndexError, match="indices must be rows of their tables"):
        route([part([1], [[[0], [index]]])], ENDS)
