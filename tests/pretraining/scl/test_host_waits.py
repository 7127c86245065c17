"""A step of SCL on a GPU does not wait for it: full banks, hard negatives, several contrasts."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch

from tests.helpers.host_waits import CUDA, EVERY_DEVICE, META, NoWaits, pretended
from tests.pretraining.scl.made_pairs import ALONE, SETTINGS, Float32, LinearEncoder, Pairs
from torchrec_mm.losses.info_nce import info_nce
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.encoder.side import PairBatch
from torchrec_mm.pretraining.scl.contrast import Contrast
from torchrec_mm.pretraining.scl.scl import SCL
from torchrec_mm.pretraining.scl.settings import OptimizerSettings
from torchrec_mm.pretraining.scl.training import Trainer

CONTRASTS = (*ALONE, Contrast("text", "image"))
SLOTS = 40
MOST_KERNELS = 1000  # of four contrasts; of two chunks and more for each block


def scl_on(device: torch.device) -> SCL:
    """On a device the whole bank is looked at, however full it is."""
    settings = replace(SETTINGS, bank_slots=SLOTS)
    with device:
        return SCL(LinearEncoder(), CONTRASTS, settings, lambda rows: rows, Float32())


def with_relevant(batch: PairBatch) -> PairBatch:
    """A content that is relevant to the first pair and to the third, besides their keys."""
    return replace(batch, relevant={"image": torch.tensor([[0, 7], [2, 3]])})


@pytest.mark.parametrize("chunk", [16, 65_536])
@EVERY_DEVICE
def test_a_step_waits_for_nothing(device, chunk, monkeypatch):
    monkeypatch.setattr(import_module(info_nce.__module__), "DEVICE_CHUNK_KEYS", chunk)
    batch = with_relevant(Pairs.draw(20, seed=3).batch())
    with pretended(device):
        scl, batch = scl_on(device), batch.to(device)
        with NoWaits(device) as mode:
            loss, _ = scl(batch)
            if device == META:
                loss.backward()
            scl.after_step()
    assert 0 < mode.launched.total() <= MOST_KERNELS


def test_an_update_is_one_kernel_a_group_and_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(SCL, "to", lambda scl, device: scl)  # it is there already
    with pretended(CUDA):
        trainer = Trainer(
            scl_on(CUDA),
            OptimizerSettings(clip_norm=1.0),
            Precision("float32", CUDA),
            Worker(CUDA, rank=0, world_size=1),
        )
        for parameter in trainer.parameters:
            parameter.grad = torch.ones_like(parameter)
        with NoWaits(CUDA) as mode:
            trainer.precision.step(trainer.optimizer, trainer.parameters, 1.0)
            trainer.scl.after_step()
    assert mode.launched["_fused_adamw_"] == len(trainer.optimizer.param_groups)
