"""Which parameter learns how fast, and when."""

import math

import pytest
import torch

from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder
from torchrec_mm.pretraining.scl.optimizer import (
    learning_rate_share,
    parameter_groups,
    set_learning_rates,
)

RATES = {"learning_rate": 1.0, "backbone_learning_rate": 0.1, "weight_decay": 0.01}


@pytest.fixture
def module(specs):
    module = torch.nn.Module()
    module.encoder = build_item_encoder(specs(layers=2))
    module.temperature = torch.nn.Parameter(torch.zeros(()))
    return module


def test_every_trained_parameter_has_the_rate_and_decay_of_its_place(module):
    groups = parameter_groups(module, **RATES, layer_decay=0.5)
    of = {id(p): group for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(of)
    expected = {}
    for modality, encoder in module.encoder.encoders.items():
        *_, before, last = encoder.backbone.layers()
        expected |= {id(p): 0.1 for p in last} | {id(p): 0.05 for p in before}
        assert before and last, modality
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in of, name
            continue
        group = of[id(parameter)]
        assert group["lr"] == group["peak"] == expected.get(id(parameter), 1.0), name
        assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else 0.0), name


def test_without_layer_decay_a_backbone_has_one_rate(module):
    assert {g["peak"] for g in parameter_groups(module, **RATES, layer_decay=1.0)} == {1.0, 0.1}


def test_the_share_rises_in_a_line_to_1_and_falls_along_a_cosine_to_0():
    shares = [learning_rate_share(step, total=14, warmup_steps=4) for step in range(14)]
    assert shares[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert shares[4:] == pytest.approx([(1 + math.cos(math.pi * i / 10)) / 2 for i in range(10)])
    assert shares[9] == pytest.approx(0.5) and 0 < shares[-1] < 0.05
    assert learning_rate_share(14, total=14, warmup_steps=4) == 0


def test_no_warm_up_starts_at_the_peak_and_a_warm_up_longer_than_the_run_is_cut_off():
    assert learning_rate_share(0, total=10, warmup_steps=0) == 1
    assert [learning_rate_share(step, total=2, warmup_steps=4) for step in range(2)] == [0.25, 0.5]


def test_rates_are_set_to_a_share_of_each_peak_however_often():
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    peaks = (1.0, 0.2)
    groups = [{"params": [w], "lr": p, "peak": p} for w, p in zip(weights, peaks, strict=True)]
    optimizer = torch.optim.AdamW(groups)
    for share in (0.5, 0.25):
        set_learning_rates(optimizer, share)
        assert [g["lr"] for g in optimizer.param_groups] == [share * peak for peak in peaks]
