"""What apps.pretrain builds from its flags, each of another value than any other."""

from pathlib import Path

import pytest

from apps.pretrain import loader_settings
from tests.pretraining.packed_room import SmallRun, config_of
from torchrec_mm.pretraining.pairs.pair_loader import LoaderSettings

LOSSES = {"momentum": 0.7, "bank_slots": 24, "in_batch": False, "triplet_weight": 0.25}
LOSSES |= {"margin": 0.75}
STEPS = {"learning_rate": 0.02, "backbone_learning_rate": 0.003, "layer_decay": 0.5}
STEPS |= {"weight_decay": 0.3, "warmup_steps": 6, "clip_norm": 0.8}
READING = {"batch_size": 8, "seed": 9, "augment": True, "num_workers": 3}
JUDGED = {"judged_searches": 5, "holdout": 0.4}
TRAINED = {"trainable_layers": 1, "batch_norm": "synchronised", "gradient_checkpointing": True}


@pytest.fixture
def config(packed, encoders, tmp_path):
    flags = LOSSES | STEPS | READING | JUDGED | TRAINED
    return config_of(tmp_path / "run", packed.folder, encoders, **flags)


@pytest.fixture
def run(config, worker) -> SmallRun:
    return SmallRun(config, worker)


def test_each_flag_is_where_its_name_says(run, packed, specs):
    assert {name: getattr(run.trainer.scl.settings, name) for name in LOSSES} == LOSSES
    assert {name: getattr(run.trainer.settings, name) for name in STEPS} == STEPS
    assert run.loader.settings == LoaderSettings(hard=True, **READING)
    assert list(run.encoder.specs.values()) == specs(layers=1, norm="synchronised")
    held_out = 0.4 * packed.num_searches
    assert len(run.judge.searches) == 5 and run.judge.num_workers == 3
    assert run.judge.searches[-1] - run.judge.searches[0] > 0.5 * held_out  # spread over them


def test_gradient_checkpointing_computes_a_trained_block_twice(run):
    calls = []
    block = run.encoder.encoders["text"].backbone.blocks()[-1]
    next(block.children()).register_forward_hook(lambda *_: calls.append(1))
    run.loader.settings = LoaderSettings(batch_size=8, seed=9)
    run.steps(1)
    assert len(calls) == 2


@pytest.mark.parametrize(("weight", "is_read"), [(0.25, True), (0.0, False)])
def test_hard_negatives_are_read_where_they_are_learned_from(weight, is_read):
    config = config_of(Path("run"), Path("packed"), Path("encoders"), triplet_weight=weight)
    assert loader_settings(config).hard == is_read
