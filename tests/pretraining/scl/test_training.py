"""One update, and what is kept of it."""

import pytest
import torch

from tests.pretraining.packed_room import SmallRun, config_of, state_of
from torchrec_mm.pretraining.encoder.batch_norm import SynchronisedBatchNorm


@pytest.fixture
def make(worker, packed, encoders, tmp_path):
    def call(**more) -> SmallRun:
        return SmallRun(config_of(tmp_path / "run", packed.folder, encoders, **more), worker)

    return call


def moved(before: dict, after: dict) -> set[str]:
    """Names of what changed, without AdamW's own."""
    return {k for k, v in after.items() if k.startswith("model.") and not v.equal(before[k])}


def test_a_step_trains_heads_gate_temperatures_banks_and_moves_the_slow_copies(make):
    run = make()
    before = state_of(run.trainer)
    run.steps(2)
    changed = moved(before, state_of(run.trainer))
    for name in (
        "encoder.encoders.image.head.projection.weight",
        "encoder.encoders.text.head.correction.2.weight",
        "encoder.gate.weigh.2.weight",
        "momentum_encoder.encoders.text.head.projection.weight",
        "losses.fused.log_temperature",
        "losses.image.bank.keys",
    ):
        assert f"model.{name}" in changed
    assert not any("backbone" in name for name in changed)


def test_a_checkpoint_has_no_frozen_weights_and_all_that_is_trained(make):
    run = make(trainable_layers=1, modality="text")
    trained = {name for name, p in run.trainer.scl.named_parameters() if p.requires_grad}
    kept = state_of(run.trainer)
    assert {f"model.{name}" for name in trained} <= kept.keys()
    for name in trained:
        for part in ("step", "exp_avg", "exp_avg_sq"):
            assert f"optimizer.{name}.{part}" in kept
    frozen = [n for n, p in run.encoder.named_parameters() if not p.requires_grad]
    assert frozen
    for name in frozen:
        assert f"model.encoder.{name}" not in kept and f"model.momentum_encoder.{name}" not in kept


def test_filling_the_shards_restores_every_bit_that_the_next_step_depends_on(make):
    flags = {"precision": "fp16", "modality": "text", "trainable_layers": 1}
    run, other = make(**flags), make(**flags)
    for trainer, scale in ((run.trainer, 2.0**12), (other.trainer, 2.0**16)):
        scaling = {"scale": scale, "growth_interval": 4}  # grown after the steps of both halves
        trainer.precision.load_state_dict(trainer.precision.state_dict() | scaling)
    run.steps(3)
    for name, shards in other.trainer.shards().items():
        shards.parts[0][1].copy_(run.trainer.shards()[name].parts[0][1])
    other.trainer.restored()
    figures, after = [], []
    for each in (run, other):
        figures.append(torch.stack(each.steps(3, first=3)))
        after.append(state_of(each.trainer))
        assert each.trainer.precision.state_dict()["scale"] == 2.0**13
    assert torch.equal(*figures)
    assert all(torch.equal(value, after[1][name]) for name, value in after[0].items())


def test_synchronised_norms_train_by_the_batch_in_both_encoders_from_the_first_step(make):
    run = make(modality="image", trainable_layers=-1, batch_norm="synchronised")
    norms = [m for m in run.trainer.scl.modules() if isinstance(m, SynchronisedBatchNorm)]
    assert norms and all(norm.training for norm in norms)
    before = state_of(run.trainer)
    run.steps(1)
    statistics = {name for name in moved(before, state_of(run.trainer)) if "running_mean" in name}
    assert len(statistics) == len(norms)
    assert any(name.startswith("model.momentum_encoder") for name in statistics)


def test_gradients_are_clipped_to_the_norm(make):
    free, clipped = make(modality="text"), make(modality="text", clip_norm=0.01)
    norms = []
    for run in (free, clipped):
        batch = next(run.loader.batches(1))
        norms.append(run.trainer.step(batch, 0, 10)[1].item())
    assert norms[0] == norms[1] > 0.1
    moments = [
        sum(v["exp_avg"].square().sum() for v in run.trainer.optimizer.state.values()).sqrt().item()
        for run in (free, clipped)
    ]
    assert moments[0] == pytest.approx(0.1 * norms[0], rel=1e-4)  # 1 - beta of AdamW
    assert moments[1] == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_step_sizes_warm_up_and_then_fall(make):
    run = make(modality="text", warmup_steps=2, epochs=1, trainable_layers=1, layer_decay=0.5)
    rates = []
    for step, batch in enumerate(run.loader.batches(1)):
        run.trainer.step(batch, step, 6)
        rates.append([group["lr"] for group in run.trainer.optimizer.param_groups])
    heads, last_layer = ([rate[i] for rate in rates] for i in _groups(run))
    assert run.trainer.learning_rate == heads[-1] != rates[-1][0]  # not of the first group
    assert heads[:3] == pytest.approx([0.5e-3, 1e-3, 1e-3])
    assert heads[2] > heads[3] > heads[-1] > 0
    assert last_layer[1] == pytest.approx(1e-5)


def _groups(run: SmallRun) -> tuple[int, int]:
    """Numbers of a group of the heads and of one of the last trained layer."""
    peaks = [group["peak"] for group in run.trainer.optimizer.param_groups]
    return peaks.index(1e-3), peaks.index(1e-5)
