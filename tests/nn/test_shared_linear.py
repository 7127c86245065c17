"""A linear layer of rows that share columns: by hand and as it is defined, forward and backward."""

import pytest
import torch
from torch import Tensor

from torchrec_mm.nn import shared_linear as module
from torchrec_mm.nn.shared_linear import Shared, Summed, shared_linear, shared_linear_reference

OWNERS = torch.tensor([0, 0, 2, 3, 3], dtype=torch.int32)  # nobody is 1's


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    """However small."""
    monkeypatch.setattr(module, "LARGE", 0)


def given(owner: Tensor = OWNERS, owners: int = 4) -> dict[str, Tensor]:
    """Two groups that learn, and one of numbers that does not; 3 units."""
    draw = torch.Generator().manual_seed(0)
    sizes = {"a": (owners, 4), "b": (owners, 2), "own": (len(owner), 5), "both": (3, 12)}
    sizes |= {"bias": (3,), "c": (owners, 1)}
    drawn = {n: torch.randn(s, generator=draw, dtype=torch.float64) for n, s in sizes.items()}
    return {name: x.requires_grad_(name != "c") for name, x in drawn.items()}


def summed() -> Summed:
    shared = torch.tensor([[1, 0, 1, 0, 1, 0, 0]])
    return Summed(shared.double(), torch.tensor([[1, 0, 0, 1, 0]]).double())


def result(way, x: dict[str, Tensor], owner: Tensor = OWNERS, each_its_own: bool = False):
    shared = Shared((x["a"], x["b"], x["c"]), owner, each_its_own)
    weights = x["both"].split([7, 5], dim=1)
    return way(shared, x["own"], weights, x["bias"], summed())


def gradients(way, **more) -> list[Tensor]:
    x = given(*(more.get(name) for name in ("owner", "owners") if name in more))
    hidden, sums = result(way, x, more.get("owner", OWNERS), more.get("each_its_own", False))
    loss = (hidden.sin().sum(1) * sums.cos()).sum()
    loss.backward()
    return [hidden, sums, *(value.grad for value in x.values() if value.requires_grad)]


@pytest.mark.parametrize("way", [shared_linear, shared_linear_reference])
def test_units_and_sums_are_those_of_all_columns_beside_each_other(way):
    x = given()
    hidden, sums = result(way, x)
    for row, owner in enumerate(OWNERS.tolist()):
        columns = torch.cat([x["a"][owner], x["b"][owner], x["c"][owner], x["own"][row]])
        torch.testing.assert_close(hidden[row], x["both"] @ columns + x["bias"])
        chosen = torch.cat([summed().shared[0], summed().own[0]]).bool()
        torch.testing.assert_close(sums[row], columns[chosen].sum())


def test_gradients_by_hand_are_autograds():
    for ours, theirs in zip(
        gradients(shared_linear), gradients(shared_linear_reference), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_where_each_row_is_its_owners_only_one_nothing_changes():
    owner = torch.arange(4, dtype=torch.int32)
    one_each = gradients(shared_linear, owner=owner, owners=4, each_its_own=True)
    plain = gradients(shared_linear_reference, owner=owner, owners=4)
    for ours, theirs in zip(one_each, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_without_a_row_gradients_are_zero():
    nobody = torch.empty(0, dtype=torch.int32)
    hidden, sums, *found = gradients(shared_linear, owner=nobody, owners=4)
    assert hidden.shape == (0, 3) and sums.shape == (0,)
    assert not any(gradient.any() for gradient in found)
