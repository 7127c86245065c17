"""InfoNCE by the kernel is InfoNCE: losses and gradients, whatever is masked."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.triton.device import DEVICE, EXAMPLES
from torchrec_mm.kernels.triton import bank_softmax as kernel
from torchrec_mm.losses.info_nce import Negatives, info_nce

module = import_module(info_nce.__module__)


def drawn(queries: int, sizes: list[int], width: int, seed: int, dtype: torch.dtype) -> tuple:
    """Unit vectors, ids that often meet, keys that are not there, and further pairs."""
    generator = torch.Generator().manual_seed(seed)

    def unit(rows: int) -> torch.Tensor:
        return F.normalize(torch.randn(rows, width, generator=generator), dim=1).to(DEVICE)

    def ids(rows: int, kinds: int = 2) -> torch.Tensor:
        return torch.randint(-1, 9, (rows, kinds), generator=generator).to(DEVICE)

    blocks = []
    for size in sizes:
        valid = (torch.rand(size, generator=generator) < 0.7).to(DEVICE)
        blocks.append(Negatives(unit(size).to(dtype), ids(size), valid if size % 2 else None))
    further = torch.cat([ids(4, 1).abs() % max(queries, 1), ids(4, 1)], dim=1)
    return unit(queries), unit(queries), ids(queries), blocks, further if queries else None


def scored(example: tuple, temperature: float, by_kernel: bool) -> tuple[torch.Tensor, ...]:
    """Losses, and gradients of queries and of the temperature."""
    query, positive, ids, blocks, further = example
    query = query.clone().requires_grad_()
    divisor = torch.tensor(temperature, device=DEVICE, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "runs_on_gpu", lambda *_: by_kernel)
        loss = info_nce(query, positive, ids, blocks, divisor, further)
        loss.sum().backward()
    return loss.detach(), query.grad, divisor.grad


@settings(max_examples=EXAMPLES)
@given(
    st.integers(0, 40),
    st.lists(st.integers(0, 90), max_size=2),
    st.sampled_from([1, 16, 24, 33]),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.float16]),
)
def test_losses_and_gradients_are_those_of_the_definition(queries, sizes, width, seed, dtype):
    example = drawn(queries, sizes, width, seed, dtype)
    found, expected = (scored(example, 0.2, by_kernel) for by_kernel in (True, False))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_splits_of_a_bank_add_up(monkeypatch):
    example = drawn(5, [301], 16, 3, torch.float32)
    expected = scored(example, 0.07, by_kernel=False)
    monkeypatch.setattr(kernel, "SPLIT_KEYS", 64)
    torch.testing.assert_close(scored(example, 0.07, True), expected, rtol=1e-5, atol=1e-5)


def test_the_coldest_temperature_stays_finite_where_all_keys_are_left_out():
    query, positive, ids, (block,), further = drawn(3, [33], 16, 5, torch.float32)
    nobody = Negatives(block.keys, block.ids, torch.zeros_like(block.valid))
    loss, gradient, _ = scored((query, positive, ids, [nobody], further), 0.01, by_kernel=True)
    assert not loss.any() and not gradient.any()
