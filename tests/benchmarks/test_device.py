"""What lies ready on a device, and simtier+make in plain PyTorch."""

import pytest
import torch

from torchrec_mm.benchmarks.device.plain_network import PlainMultimodal
from torchrec_mm.benchmarks.ranking.short_rows import HISTORY
from torchrec_mm.nn.make import Make
from torchrec_mm.nn.simtier import SimTier
from torchrec_mm.ranking.spec import RankerSettings

ROWS = {"item_id": 30, "category": 5, "user_id": 4}


@pytest.fixture
def network() -> PlainMultimodal:
    columns = dict.fromkeys([*ROWS, HISTORY + "item_id", HISTORY + "category"], torch.zeros(1))
    make = Make(vector_width=128, width=8, hidden=(6, 4))
    return PlainMultimodal(ROWS, columns, RankerSettings(num_tiers=7), make)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    history = torch.randint(1, 5, (9, 12))
    history[:, 8:] = 0
    batch = {name: torch.randint(1, rows, (9,)) for name, rows in ROWS.items()}
    return batch | {HISTORY + "item_id": history, HISTORY + "category": history}


def test_its_one_hot_tiers_are_simtiers(network, batch):
    items, history = batch["item_id"], batch[HISTORY + "item_id"]
    target, past = network.vectors[items][:, None], network.vectors[history]
    cosine = target @ past.mT
    expected = SimTier(7)(cosine, (history != 0)[:, None])[:, 0]
    found = network.tiers(target, past, history != 0)
    assert torch.equal(found, expected) and found.sum() == 9 * 8


def test_every_part_has_its_say(network, batch):
    torch.nn.init.ones_(network.make.mlp.logit.weight)
    before = network(batch)
    assert before.shape == (9,)
    before.sum().backward()
    learned = {name for name, each in network.named_parameters() if each.grad is not None}
    assert learned == {n for n, _ in network.named_parameters() if not n.startswith("make.")}
    with torch.no_grad():
        network.vectors[1:5] = -network.vectors[1:5]
        assert not torch.allclose(network(batch), before)
