"""The general search by the kernel has the bits of its definition."""

from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.triton.device import DEVICE, EXAMPLES
from torchrec_mm.kernels.general_search import general_search, general_search_reference

VECTORS = 12


def drawn(sizes: list[tuple[int, int]], width: int, largest: int, seed: int) -> list[torch.Tensor]:
    """Requests of so many candidates and behaviours; few vectors, so that many cosines are equal.

    The first vector is zero; a row of -1 is an item without one.
    """
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randint(-largest, largest + 1, (VECTORS, width), generator=generator)
    vectors[0] = 0
    rows, offsets = [], []
    for column in (0, 1):
        lengths = torch.tensor([0, *(size[column] for size in sizes)])
        offsets.append(lengths.cumsum(0))
        of_all = (int(lengths.sum()),)
        rows.append(torch.randint(-1, VECTORS, of_all, generator=generator, dtype=torch.int32))
    return [part.to(DEVICE) for part in (vectors.to(torch.int8), *rows, *offsets)]


def by_kernel(*args, **how):
    with pytest.MonkeyPatch.context() as patch:
        module = import_module(general_search.__module__)
        patch.setattr(module, "runs_on_gpu", lambda *_: True)
        return general_search(*args, **how)


@settings(max_examples=EXAMPLES)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 7, 33, 70])), max_size=4),
    st.sampled_from([1, 16, 40]),
    st.sampled_from([1, 127]),
    st.integers(0, 99),
    st.sampled_from([(0, 0), (0, 5), (3, 2), (9, 8)]),
    st.booleans(),
)
def test_all_that_is_found_has_the_bits_of_the_definition(
    sizes, width, largest, seed, asked, pairs
):
    args = drawn(sizes, width, largest, seed)
    how = {"keep": asked[0], "num_tiers": asked[1], "pairs": pairs}
    expected = general_search_reference(*args, **how)
    for ours, theirs in zip(by_kernel(*args, **how), expected, strict=True):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


def test_longer_lists_than_are_looked_at_in_one_go():
    args = drawn([(2, 1500)], 16, 2, 4)
    how = {"keep": 40, "num_tiers": 6}
    for ours, theirs in zip(
        by_kernel(*args, **how), general_search_reference(*args, **how), strict=True
    ):
        assert torch.equal(ours, theirs)
