"""The general search unit: the kernel and PyTorch against plain Python, and each other."""

import math
import platform

import pytest
import torch

from torchrec_mm.kernels.build import compiled
from torchrec_mm.kernels.general_search import SearchHits, general_search, general_search_reference
from torchrec_mm.nn.simtier import SimTier

IMPLEMENTATIONS = [general_search, general_search_reference]
both = pytest.mark.parametrize("search", IMPLEMENTATIONS)
X86 = platform.machine() in ("x86_64", "AMD64")
OTHER_PROCESSORS = [("-mno-avx512f",), ("-mno-avx512vnni",)] if X86 else [()]


def offsets(lengths) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def requests(lengths, num_vectors, holes=0.2, seed=0):
    """Random rows for requests of (candidates, behaviours), some of them -1."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for total in (sum(c for c, _ in lengths), sum(b for _, b in lengths)):
        row = torch.randint(num_vectors, (total,), generator=generator)
        row[torch.rand(total, generator=generator) < holes] = -1
        rows.append(row)
    return (*rows, offsets([c for c, _ in lengths]), offsets([b for _, b in lengths]))


def small_integers(rows, width, low, high, dtype=torch.int8):
    generator = torch.Generator().manual_seed(width)
    return torch.randint(low, high, (rows, width), generator=generator).to(dtype)


def in_plain_python(
    vectors, candidate_rows, behaviour_rows, candidate_at, behaviour_at, keep, num_tiers
):
    """One (kept, cosines, tiers) an impression, in float64."""
    vectors, answer = vectors.tolist(), []
    for request in range(len(candidate_at) - 1):
        behaviours = behaviour_rows[behaviour_at[request] : behaviour_at[request + 1]].tolist()
        for row in candidate_rows[candidate_at[request] : candidate_at[request + 1]].tolist():
            pairs = [
                (cosine(vectors[row], vectors[behaviour]), place)
                for place, behaviour in enumerate(behaviours)
                if row >= 0 and behaviour >= 0
            ]
            tiers = [0] * num_tiers
            for value, _ in pairs:
                tiers[min(int((value + 1) / 2 * num_tiers), num_tiers - 1)] += 1
            best = sorted(pairs, reverse=True)[:keep]
            answer.append(([place for _, place in best], [value for value, _ in best], tiers))
    return answer


def cosine(a, b) -> float:
    length = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


def same(left: SearchHits, right: SearchHits) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@both
@pytest.mark.parametrize("dtype", [torch.int8, torch.float32])
def test_the_search_is_what_plain_python_finds(search, dtype):
    vectors = small_integers(40, 16, -127, 128, dtype)
    given = (vectors, *requests([(3, 30), (1, 0), (2, 7), (0, 5), (4, 19)], 40))
    sizes = {"keep": 5, "num_tiers": 7}
    found, truth = search(*given, **sizes), in_plain_python(*given, **sizes)
    assert found.num_kept.tolist() == [len(kept) for kept, _, _ in truth]
    assert found.tiers.tolist() == [tiers for _, _, tiers in truth]
    for i, (kept, values, _) in enumerate(truth):
        beyond = 5 - len(kept)
        # The same item twice has one cosine in either precision: ties are ties.
        assert found.kept[i].tolist() == kept + [0] * beyond
        assert found.cosine[i].tolist() == pytest.approx(values + [0.0] * beyond, abs=1e-6)


@both
@pytest.mark.parametrize("dtype", [torch.int8, torch.float32])
@pytest.mark.parametrize("sizes", [{"keep": 5, "num_tiers": 7}, {"keep": 0, "num_tiers": 0}])
def test_pairs_are_the_cosines_of_every_candidate_with_every_behaviour(search, dtype, sizes):
    vectors = small_integers(40, 16, -127, 128, dtype)
    rows = requests([(3, 30), (1, 0), (2, 7), (0, 5), (4, 19)], 40)
    candidates, behaviours, of_candidates, of_behaviours = (part.tolist() for part in rows)
    expected = []
    for r in range(len(of_candidates) - 1):
        for left in candidates[of_candidates[r] : of_candidates[r + 1]]:
            for right in behaviours[of_behaviours[r] : of_behaviours[r + 1]]:
                known = left >= 0 and right >= 0
                expected.append(
                    cosine(vectors[left].tolist(), vectors[right].tolist()) if known else 0.0
                )
    assert search(vectors, *rows, **sizes, pairs=True).pairs.tolist() == pytest.approx(
        expected, abs=1e-6
    )
    assert 0.0 in expected and search(vectors, *rows, **sizes).pairs.shape == (0,)


@both
def test_tiers_are_counted_without_keeping_anything(search):
    given = (small_integers(40, 16, -127, 128), *requests([(3, 30), (2, 7)], 40))
    counted, kept = (search(*given, keep=keep, num_tiers=7) for keep in (0, 5))
    assert torch.equal(counted.tiers, kept.tiers)
    assert counted.kept.shape == counted.cosine.shape == (5, 0) and not counted.num_kept.any()


@pytest.mark.parametrize("width", [1, 3, 64, 100, 128, 200, 1500])
@pytest.mark.parametrize("keep", [1, 50, 400])
@pytest.mark.parametrize(("low", "high"), [(-128, 128), (-1, 2)], ids=["any", "many ties"])
def test_int8_kernel_and_pytorch_agree_to_the_last_bit(width, keep, low, high):
    vectors = small_integers(300, width, low, high)
    rows = requests([(5, 333), (1, 16), (0, 40), (9, 15), (11, 0), (4, 1), (6, 170)], 300)
    for num_tiers in (2, 20, 22):
        given, sizes = (vectors, *rows), {"keep": keep, "num_tiers": num_tiers}
        assert same(general_search(*given, **sizes), general_search_reference(*given, **sizes))


def test_sums_larger_than_float32_holds_are_exact():
    """3000 products of about 13 000 are more than 2**24."""
    vectors = small_integers(60, 3000, 100, 128)
    given, sizes = (vectors, *requests([(5, 50)], 60, holes=0.0)), {"keep": 50, "num_tiers": 20}
    found = general_search_reference(*given, **sizes)
    products = vectors.long() @ vectors.long().T
    lengths = products.diag().float().double().sqrt().float()
    for row, kept, values in zip(given[1], found.kept, found.cosine, strict=True):
        rows = given[2][kept]
        cosines = products[row, rows].float() * (1 / lengths[row]) * (1 / lengths[rows])
        assert torch.equal(values, cosines)
    assert same(found, general_search(*given, **sizes))


@pytest.mark.parametrize("flags", OTHER_PROCESSORS)
@pytest.mark.parametrize(("low", "high"), [(-128, 128), (-1, 2)], ids=["any", "many ties"])
def test_int8_kernels_of_other_processors_agree_too(monkeypatch, flags, low, high):
    monkeypatch.setattr(
        "torchrec_mm.kernels.general_search.compiled",
        lambda name, *others: compiled(name, *others, *flags),
    )
    rows = requests([(5, 333), (1, 16), (0, 40), (11, 0), (6, 170)], 300)
    for width in (3, 128):
        given, sizes = (small_integers(300, width, low, high), *rows), {"keep": 50, "num_tiers": 20}
        assert same(general_search(*given, **sizes), general_search_reference(*given, **sizes))


def test_float32_kernel_and_pytorch_agree_up_to_rounding():
    vectors = torch.randn(300, 100, generator=torch.Generator().manual_seed(0))
    given, sizes = (vectors, *requests([(5, 333), (7, 80)], 300)), {"keep": 50, "num_tiers": 20}
    kernel, pytorch = general_search(*given, **sizes), general_search_reference(*given, **sizes)
    assert torch.equal(kernel.num_kept, pytorch.num_kept)
    torch.testing.assert_close(kernel.cosine, pytorch.cosine, rtol=0, atol=1e-6)
    assert (kernel.tiers - pytorch.tiers).abs().sum() <= 2  # a cosine on the edge of a tier


def test_many_threads_find_what_one_finds():
    vectors = small_integers(300, 32, -128, 128)
    given, sizes = (vectors, *requests([(3, 50)] * 40, 300)), {"keep": 10, "num_tiers": 20}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = general_search(*given, **sizes)
        torch.set_num_threads(4)
        assert same(general_search(*given, **sizes), one)
    finally:
        torch.set_num_threads(before)


@both
def test_of_equal_cosines_the_newest_comes_first(search):
    vectors = torch.tensor([[1, 0], [3, 0], [0, 2]], dtype=torch.int8)
    history = torch.tensor([1, 0, 2, 1, -1, 0] * 100)
    rows, ends = (torch.tensor([0]), history), (offsets([1]), offsets([600]))
    found = search(vectors, *rows, *ends, keep=5, num_tiers=2)
    assert found.kept.tolist() == [[599, 597, 595, 594, 593]]
    assert found.cosine.tolist() == [[1.0] * 5]


@both
def test_when_all_cosines_are_equal_the_newest_stay(search):
    vectors = torch.ones(1, 8, dtype=torch.int8)
    zeros = torch.zeros(1000, dtype=torch.int64)
    found = search(vectors, zeros[:1], zeros, offsets([1]), offsets([1000]), keep=50, num_tiers=20)
    assert found.kept.tolist() == [list(range(999, 949, -1))]
    assert found.tiers.tolist() == [[0.0] * 19 + [1000.0]]


@both
def test_without_a_vector_nothing_is_kept_or_counted(search):
    vectors = small_integers(4, 8, 1, 100)
    nobody, somebody = torch.tensor([-1, 2]), torch.tensor([-1, -1, 3])
    found = search(vectors, nobody, somebody, offsets([2]), offsets([3]), keep=2, num_tiers=4)
    assert found.num_kept.tolist() == [0, 1]
    assert found.kept.tolist() == [[0, 0], [2, 0]]
    assert found.tiers.sum(1).tolist() == [0, 1]


@both
def test_a_zero_vector_is_at_cosine_0(search):
    vectors = torch.tensor([[0, 0], [5, 1]], dtype=torch.int8)
    rows = (torch.tensor([0, 1]), torch.tensor([1, 0]), offsets([2]), offsets([2]))
    found = search(vectors, *rows, keep=2, num_tiers=2)
    assert found.cosine.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert found.kept.tolist() == [[1, 0], [0, 1]]


@both
def test_a_cosine_too_small_for_a_number_is_0_and_ties_with_0_whatever_its_sign(search):
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1e-38, 1e15]])
    rows = (torch.tensor([0]), torch.tensor([1, 2, 1]), offsets([1]), offsets([3]))
    found = search(vectors, *rows, keep=3, num_tiers=2)
    assert found.cosine.tolist() == [[0.0, 0.0, 0.0]]
    assert found.kept.tolist() == [[2, 1, 0]]


@both
@pytest.mark.parametrize("lengths", [[], [(0, 0)], [(2, 0), (0, 3)]])
def test_empty_requests_give_empty_answers(search, lengths):
    found = search(small_integers(4, 8, 1, 9), *requests(lengths, 4), keep=3, num_tiers=4)
    impressions = sum(c for c, _ in lengths)
    assert [len(part) for part in found] == [impressions] * 4 + [0]
    assert not any(part.any() for part in found)


def test_tiers_are_those_of_simtier():
    vectors = small_integers(100, 16, -3, 4)
    given, sizes = (vectors, *requests([(4, 200)], 100, holes=0.0)), {"keep": 200, "num_tiers": 20}
    found = general_search(*given, **sizes)
    pair_mask = torch.ones(found.cosine.shape, dtype=torch.bool)
    assert torch.equal(SimTier(20)(found.cosine, pair_mask), found.tiers)


def test_a_history_answers_alike_in_any_batch():
    vectors = small_integers(300, 32, -128, 128)
    candidates, behaviours, _, _ = requests([(3, 120)], 300)
    once = (candidates, behaviours, offsets([3]), offsets([120]))
    alone = general_search(vectors, *once, keep=9, num_tiers=20)
    twice = (candidates.repeat(2), behaviours.repeat(2), offsets([3, 3]), offsets([120, 120]))
    together = general_search(vectors, *twice, keep=9, num_tiers=20)
    assert same(alone, SearchHits(*(part[3:] for part in together)))


def test_a_request_of_any_number_of_candidates_is_searched_some_at_a_time():
    """More than the kernel compares at once: each candidate finds what it finds among few."""
    vectors = small_integers(300, 16, -128, 128)
    candidate_rows, behaviour_rows, *_ = requests([(30_000, 60)], 300)
    found = general_search(
        vectors,
        candidate_rows,
        behaviour_rows,
        offsets([30_000]),
        offsets([60]),
        keep=5,
        num_tiers=20,
    )
    some = torch.cat([torch.arange(0, 30_000, 997), torch.tensor([16_383, 16_384, 29_999])])
    among_few = general_search(
        vectors,
        candidate_rows[some],
        behaviour_rows,
        offsets([len(some)]),
        offsets([60]),
        keep=5,
        num_tiers=20,
    )
    assert same(SearchHits(*(tensor[some] for tensor in found[:-1]), found.pairs), among_few)


def test_pytorch_in_pieces_finds_what_it_finds_at_once(monkeypatch):
    given, sizes = (
        (small_integers(50, 8, -9, 9), *requests([(3, 20), (1, 9), (2, 33)], 50)),
        {"keep": 4, "num_tiers": 20},
    )
    whole = general_search_reference(*given, **sizes)
    monkeypatch.setattr("torchrec_mm.kernels.general_search.CELLS", 1)
    assert same(general_search_reference(*given, **sizes), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": torch.zeros(4, 8, dtype=torch.float64)}, "vectors must be"),
        ({"vectors": torch.zeros(8, 4, dtype=torch.int8).T}, "vectors must be"),
        ({"candidate_rows": torch.tensor([4])}, r"candidate_rows must lie in \[-1, 4\)"),
        ({"behaviour_rows": torch.tensor([0, -2])}, "behaviour_rows must lie"),
        ({"behaviour_offsets": torch.tensor([0, 3])}, "behaviour_offsets must be int64"),
        ({"behaviour_offsets": torch.tensor([0, 1, 2])}, "of the same requests"),
        (
            {
                "candidate_offsets": torch.tensor([0, 1, 1]),
                "behaviour_offsets": torch.tensor([0, 3, 2]),
            },
            "behaviour_offsets must not fall",
        ),
        ({"keep": -1}, "keep must be"),
        ({"num_tiers": 0}, "num_tiers at least 2, or 0 where keep is 0"),
        ({"num_tiers": 1}, "num_tiers"),
    ],
)
def test_what_breaks_the_contract_is_refused(change, message):
    given = {
        "vectors": torch.ones(4, 8, dtype=torch.int8),
        "candidate_rows": torch.tensor([0]),
        "behaviour_rows": torch.tensor([1, 2]),
        "candidate_offsets": torch.tensor([0, 1]),
        "behaviour_offsets": torch.tensor([0, 2]),
        "keep": 2,
        "num_tiers": 4,
    }
    general_search(**given)
    with pytest.raises(ValueError, match=message):
        general_search(**given | change)
