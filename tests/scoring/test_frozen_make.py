"""A frozen MAKE where batches are made: what it says is what MAKE says of each request.

On two ranks, ``on_each_rank`` checks the same of vectors in the ranks' memory.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from tests.parallel.launch import on_two_ranks
from tests.ranking.small_ranker import MAKE, Encoded, encode, ranker_of, spec_of
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.folds import folds_of
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.nn.make import Make
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharded_vectors import vector_source
from torchrec_mm.ranking import frozen_make as ranking
from torchrec_mm.ranking.collators import collator_for_ranker
from torchrec_mm.ranking.frozen_make import FrozenMake
from torchrec_mm.ranking.make import MakeSpec
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import METHODS
from torchrec_mm.scoring.frozen_make import frozen_make

ITEMS = 11  # odd: the last rank's slice is shorter
STORAGES = ("mapped", "sharded")


@pytest.fixture(scope="module")
def encoded(market) -> Encoded:
    return encode(market)


def ranker_with(vectors: ItemVectors, encoded: Encoded) -> Ranker:
    """One of method make over vectors of any width."""
    spec = spec_of("make", encoded)
    make = replace(MAKE, vector_width=vectors.width)
    return ranker_of(replace(spec, vector_width=vectors.width, make=make))


def folder_of(parent: Path, dtype: str) -> Path:
    """Vectors of any length."""
    folder = parent / dtype
    values = np.random.default_rng(0).normal(size=(ITEMS, 5)).astype(np.float32) * 3
    ids = np.arange(ITEMS) * 3
    write_item_vectors(folder, ids, values, dtype=dtype, encoder="e", modality="m")
    return folder


def projections(ranker: Ranker, vectors: ItemVectors) -> torch.Tensor:
    """(N, M) by definition."""
    values = torch.from_numpy(np.array(vectors.values)).double()
    unit = values / values.norm(dim=1, keepdim=True)
    with torch.no_grad():
        return ranker.network.make.project(unit.float())


def collator_of(method: str, encoded: Encoded, worker: Worker, storage="mapped"):
    """The ranker and what makes its batches."""
    spec = spec_of(method, encoded)
    ranker = ranker_of(spec)
    vectors = encoded.vectors if method != "id" else None
    make = frozen_make(ranker, vectors, storage, worker)
    source = vector_source(vectors, storage, worker) if vectors else None
    return ranker, collator_for_ranker(spec, encoded.data.items, source, 3, make)


def made_by_definition(make: Make, encoded: Encoded, rows: list[int]) -> torch.Tensor:
    """(I, M + hidden + 1): each request alone, its lists as the matrices that MAKE takes."""
    source = MappedVectors(encoded.vectors)
    numbers = source.rows(encoded.data.items.item_ids)
    share = encoded.arrays.take(np.array(rows))
    newest, _ = share.behaviours.newest(3)
    made = []
    for place in range(len(rows)):
        sides = [
            source.gather(numbers[lists.values[lists.offsets[place] : lists.offsets[place + 1]]])
            for lists in (share.candidates, newest)
        ]
        values, masks = zip(*((values[None], mask[None]) for values, mask in sides), strict=True)
        with torch.no_grad():
            features = make(*values, *masks)
        parts = [features.interest, *features.hidden, features.logit[..., None]]
        made.append(torch.cat(parts, dim=-1)[0])
    return torch.cat(made)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("method", ["make", "simtier+make"])
def test_what_is_made_is_what_make_says_of_each_request(method, storage, encoded, worker):
    ranker, collator = collator_of(method, encoded, worker, storage)
    rows = list(range(len(encoded.data)))
    batch = collator(encoded.arrays.take(np.array(rows)), 1.0)
    expected = made_by_definition(ranker.network.make, encoded, rows)
    assert batch.made.shape == (len(batch.labels), 6 + 5 + 4 + 1)
    torch.testing.assert_close(batch.made, expected, rtol=1e-4, atol=1e-5)
    unknown = ~batch.vector_mask[batch.candidates]
    assert unknown.any() and not batch.made[unknown].any()
    assert batch.made[~unknown].any(dim=1).all()
    assert batch.search.cosine is None


def test_what_is_made_of_a_batch_is_the_same_bits_whatever_is_compared_at_once(encoded, worker):
    _, collator = collator_of("make", encoded, worker)
    count = len(encoded.data)
    shares = [encoded.arrays.take(np.arange(begin, count, 3)) for begin in range(3)]
    together = collator.compare(shares)
    for share, found in zip(shares, together, strict=True):
        (alone,) = collator.compare([share])
        assert torch.equal(found.made, alone.made) and len(alone.made) == len(share.labels)


@pytest.fixture
def folded(encoded, worker) -> tuple[Ranker, FrozenMake, Collator]:
    """A ranker whose MAKE has three folds, what it says of requests, and who asks it."""
    spec = replace(spec_of("make", encoded), make=replace(MAKE, folds=3))
    ranker = ranker_of(spec)
    make = frozen_make(ranker, encoded.vectors, "mapped", worker)
    source = vector_source(encoded.vectors, "mapped", worker)
    return ranker, make, collator_for_ranker(spec, encoded.data.items, source, 3, make)


def test_of_a_request_that_it_learned_from_the_make_of_its_fold_speaks(encoded, folded):
    ranker, make, collator = folded
    rows = list(range(len(encoded.data)))
    share = encoded.arrays.take(np.array(rows))
    (compared,) = replace(collator, make=make.of_training()).compare([share])
    of_each = [made_by_definition(module, encoded, rows) for module in ranker.network.make]
    fold = folds_of(np.array(rows), 3)[share.candidates.owners()]
    expected = torch.stack(of_each)[torch.from_numpy(fold), torch.arange(len(fold))]
    torch.testing.assert_close(compared.made, expected, rtol=1e-4, atol=1e-5)


def test_of_any_other_request_the_mean_of_all_folds_is_made(encoded, folded):
    ranker, _, collator = folded
    rows = list(range(20))
    (compared,) = collator.compare([encoded.arrays.take(np.array(rows))])
    of_each = [made_by_definition(module, encoded, rows) for module in ranker.network.make]
    assert not torch.allclose(of_each[0], of_each[1], atol=0.1)
    expected = torch.stack(of_each).mean(dim=0)
    torch.testing.assert_close(compared.made, expected, rtol=1e-4, atol=1e-5)


def test_what_a_fold_makes_of_a_batch_is_the_same_bits_whatever_is_compared_at_once(
    encoded, folded
):
    _, make, collator = folded
    collator = replace(collator, make=make.of_training())
    # The second is of one fold alone, and the last of no impression.
    parts = [np.arange(9), np.flatnonzero(folds_of(np.arange(60), 3) == 1), np.arange(9, 20)]
    shares = [encoded.arrays.take(part) for part in parts]
    shares.append(encoded.arrays.take(np.arange(3)).without_candidates())
    for share, found in zip(shares, collator.compare(shares), strict=True):
        (alone,) = collator.compare([share])
        assert torch.equal(found.made, alone.made) and len(alone.made) == len(share.labels)


@pytest.mark.parametrize("method", METHODS)
def test_methods_with_make_alone_get_what_it_makes(method, encoded, worker):
    _, collator = collator_of(method, encoded, worker)
    batch = collator(encoded.arrays.take(np.arange(9)), 1.0)
    assert (batch.made is not None) == ("make" in method)
    assert (batch.vectors is not None) == (method == "vector")
    assert (batch.search is not None) == (method not in ("id", "vector", "codes"))
    assert (batch.vector_mask is not None) == (method not in ("id", "codes"))


def test_a_masked_batch_makes_nothing_of_no_impression(encoded, worker):
    _, collator = collator_of("make", encoded, worker, "sharded")
    for rows in (np.arange(9), encoded.arrays.behaviours.lengths.argmin()[None]):
        batch = collator(encoded.arrays.take(rows), 1.0, masked=True)
        assert batch.made.shape == (0, 6 + 5 + 4 + 1)


def test_the_projected_file_is_gone_and_still_read(encoded, worker, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ranker, collator = collator_of("make", encoded, worker)
    assert list(tmp_path.iterdir()) == []
    batch = collator(encoded.arrays.take(np.arange(9)), 1.0)
    expected = made_by_definition(ranker.network.make, encoded, list(range(9)))
    torch.testing.assert_close(batch.made, expected, rtol=1e-4, atol=1e-5)


def test_what_becomes_of_the_rankers_weights_is_none_of_its_business(encoded, worker):
    ranker, collator = collator_of("make", encoded, worker)
    share = encoded.arrays.take(np.arange(9))
    before = collator(share, 1.0).made
    with torch.no_grad():
        for parameter in ranker.network.make.parameters():
            parameter.fill_(7)
    assert torch.equal(collator(share, 1.0).made, before)
    assert ranker.network.make.training is False


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_the_table_holds_the_projection_of_each_unit_vector(
    dtype, storage, encoded, worker, tmp_path, monkeypatch
):
    monkeypatch.setattr(ranking, "VALUES_AT_ONCE", 4 * 5)  # in blocks of four
    vectors = ItemVectors.open(folder_of(tmp_path, dtype))
    ranker = ranker_with(vectors, encoded)
    make = frozen_make(ranker, vectors, storage, worker)
    rows = np.array([*range(ITEMS), -1])
    table, mask = make.projected.gather(rows)
    expected = projections(ranker, vectors)
    torch.testing.assert_close(table[:-1], expected, rtol=1e-5, atol=1e-5)
    assert table.dtype == torch.float32 and not table[-1].any()
    assert mask.tolist() == [True] * ITEMS + [False]


def on_each_rank(worker: Worker, folder: Path) -> None:
    """What the ranks of the test below do; each draws the same weights."""
    tempfile.tempdir = str(folder / "tmp")
    for dtype in ("int8", "float32"):
        vectors = ItemVectors.open(folder / dtype)
        torch.manual_seed(0)
        ranker = torch.nn.Module()
        ranker.network = torch.nn.Module()
        shape = MakeSpec(vector_width=vectors.width, width=6, hidden=(5,), dropout=0.0)
        ranker.network.make = shape.build().requires_grad_(False).eval()
        ranker.network.spec = SimpleNamespace(make=shape, sequences=())
        expected = projections(ranker, vectors)
        for storage in STORAGES:
            make = frozen_make(ranker, vectors, storage, worker)
            dist.barrier()  # the first rank on the host has removed it
            assert not list((folder / "tmp").iterdir())
            dist.barrier()  # nor has it made the next one yet
            # The ranks ask for others, and one of them for nothing.
            for rows in (range(3 * worker.rank, ITEMS, 2), range(ITEMS * worker.rank)):
                table, _ = make.projected.gather(np.array(rows, dtype=np.int64))
                torch.testing.assert_close(table, expected[list(rows)], rtol=1e-5, atol=1e-5)


def test_two_ranks_read_one_table_that_the_first_has_projected(tmp_path):
    (tmp_path / "tmp").mkdir()
    for dtype in ("int8", "float32"):
        folder_of(tmp_path, dtype)
    on_two_ranks(__name__, tmp_path)
