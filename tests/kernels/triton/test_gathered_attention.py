"""Gathered attention by the kernel is its definition, forward and backward."""

import math
from importlib import import_module

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.triton.device import DEVICE, EXAMPLES
from torchrec_mm.kernels.gathered_attention import gathered_attention, gathered_attention_reference

SLOTS = 9


def drawn(impressions: int, rows: int, kept: int, width: int, cosine: bool, seed: int) -> dict:
    """Rows of any length, 0 as well; padding holds slots that are none, and cosines that are NaN.

    ``rows``: of index; 0: each impression has its own.
    """
    generator = torch.Generator().manual_seed(seed)
    own = rows or impressions
    length = torch.randint(0, kept + 1, (own,), generator=generator, dtype=torch.int32)
    padding = torch.arange(kept) >= length[:, None]
    index = torch.randint(SLOTS, (own, kept), generator=generator, dtype=torch.int32)
    request = torch.randint(max(rows, 1), (impressions,), generator=generator, dtype=torch.int32)
    similar = torch.rand(impressions, kept, generator=generator)
    similar.masked_fill_(padding[request] if rows else padding, math.nan)
    given = {
        "query": torch.randn(impressions, width, generator=generator),
        "table": torch.randn(SLOTS, width, generator=generator),
        "index": index.masked_fill(padding, 2**31 - 1),
        "length": length,
        "cosine": similar if cosine else None,
        "mix": torch.tensor([0.7, 1.3, -0.4]) if cosine else None,
        "request": request if rows else None,
    }
    return {name: None if x is None else x.to(DEVICE) for name, x in given.items()}


def found(inputs: dict, attention) -> list[torch.Tensor]:
    """Interest and mean, and gradients of query, table and mix."""
    learned = [name for name in ("query", "table", "mix") if inputs[name] is not None]
    leaves = {name: inputs[name].clone().requires_grad_() for name in learned}
    interest, mean = attention(**(inputs | leaves))
    (interest.sin().sum() + mean.cos().sum()).backward()
    return [interest.detach(), mean.detach(), *(leaf.grad for leaf in leaves.values())]


def by_kernel(**inputs):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module(gathered_attention.__module__), "runs_on_gpu", lambda *_: True)
        return gathered_attention(**inputs)


@settings(max_examples=EXAMPLES)
@given(
    st.integers(0, 9),
    st.integers(0, 4),
    st.sampled_from([1, 6, 33, 70]),
    st.sampled_from([1, 16, 24]),
    st.booleans(),
    st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_definition(
    impressions, rows, kept, width, cosine, seed
):
    inputs = drawn(impressions, rows, kept, width, cosine, seed)
    expected = found(inputs, gathered_attention_reference)
    torch.testing.assert_close(found(inputs, by_kernel), expected, rtol=1e-5, atol=1e-5)


def test_large_scores_stay_finite():
    inputs = drawn(5, 3, 33, 16, False, 1)
    inputs["query"] *= 1000
    expected = found(inputs, gathered_attention_reference)
    torch.testing.assert_close(found(inputs, by_kernel), expected, rtol=1e-4, atol=1e-3)
