"""Look-ups handed out: each request gets its own embeddings, however tables lie in memory."""

from types import SimpleNamespace

import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.ranking import lookups
from torchrec_mm.ranking.lookups import Lookups, runs_of

WIDTH, REQUESTS = 4, 3
NAMES = ("user_id", "city", "age", "tags")


@pytest.mark.parametrize(
    ("sources", "gathers"),
    [
        ([("user_id", "city", "age", "tags")], False),
        ([("user_id", "city", "age", "other"), ("tags",)], False),
        ([("other", "user_id", "city"), ("age", "tags", "more")], False),
        ([("tags", "city", "user_id", "age")], True),
        ([("user_id", "age"), ("city", "tags")], True),
    ],
)
def test_requests_have_the_columns_of_their_features_in_order(sources, gathers, monkeypatch):
    gathered, gather = [], lookups.gather_columns
    monkeypatch.setattr(
        lookups, "gather_columns", lambda *args: gathered.append(args) or gather(*args)
    )
    generator = torch.Generator().manual_seed(0)
    tables = [
        torch.randn(REQUESTS + 2, WIDTH * len(names), generator=generator, requires_grad=True)
        for names in sources
    ]
    batch = SimpleNamespace(rows=torch.arange(REQUESTS))
    spec = SimpleNamespace(
        embedding_dim=WIDTH, tables=SimpleNamespace(request=dict.fromkeys(NAMES, 9))
    )
    keyed = [
        KeyedTensor(list(names), [WIDTH] * len(names), table)
        for names, table in zip(sources, tables, strict=True)
    ]
    found = Lookups.of(batch, spec, keyed).requests()
    by_name = {
        name: table[:REQUESTS, place * WIDTH : (place + 1) * WIDTH]
        for names, table in zip(sources, tables, strict=True)
        for place, name in enumerate(names)
    }
    expected = torch.cat([by_name[name] for name in NAMES], dim=1)
    assert torch.equal(found, expected) and bool(gathered) is gathers
    weight = torch.randn(expected.shape, generator=generator)
    ours, plain = (torch.autograd.grad((x * weight).sum(), tables) for x in (found, expected))
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_neighbours_in_one_source_are_one_run():
    columns = ((0, 4), (0, 8), (1, 0), (0, 12), (0, 20))
    assert runs_of(columns, WIDTH) == [(0, 4, 12), (1, 0, 4), (0, 12, 16), (0, 20, 24)]
