"""Phase one on a GPU: the figures of the CPU's steps from the same weights."""

from pathlib import Path

import pytest
import torch

from tests.pretraining import tiny
from tests.pretraining.packed_room import SmallRun, config_of, packed_tiny, state_of
from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.parallel.process_group import process_group

pytestmark = pytest.mark.gpu

TOLERANCE = 1e-3
STEPS = 3


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("encoders")
    tiny.save_image_encoder(folder / "image")
    tiny.save_text_encoder(folder / "text")
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> PackedContent:
    return packed_tiny(tmp_path_factory.mktemp("packed"))


@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_steps_and_banks_are_those_of_a_cpu(trainable_layers, encoders, packed, tmp_path, ranks_on):
    figures, states, begun = {}, {}, None
    for device in ("cpu", "gpu"):
        folders = (tmp_path / device, packed.folder, encoders)
        config = config_of(*folders, trainable_layers=trainable_layers)
        with ranks_on(device), process_group() as worker:
            run = SmallRun(config, worker)
            begun = begun or state_of(run.trainer)
            for name, shards in run.trainer.shards().items():  # heads may differ in their signs
                shards.parts[0][1].copy_(begun[name])
            run.trainer.restored()
            figures[device] = torch.stack(run.steps(STEPS)).cpu()
            states[device] = {name: t.cpu() for name, t in state_of(run.trainer).items()}
    torch.testing.assert_close(figures["gpu"], figures["cpu"], rtol=TOLERANCE, atol=TOLERANCE)
    banks = [name for name in states["cpu"] if "bank.keys" in name]
    assert banks
    for name in banks:
        ours, theirs = (states[device][name].float() for device in ("gpu", "cpu"))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-2)
