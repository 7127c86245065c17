"""Synchronised norms: two ranks are one, and one is torch's own BatchNorm."""

import copy
import shutil

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from tests.parallel.launch import on_two_ranks
from tests.pretraining.encoder import norms
from torchrec_mm.pretraining.encoder.batch_norm import (
    SynchronisedBatchNorm,
    counted_rows,
    synchronise_batch_norms,
)
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec, build_encoder


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, image_encoder):
    folder = tmp_path_factory.mktemp("norms")
    shutil.copytree(image_encoder, folder / "image")
    on_two_ranks("tests.pretraining.encoder.norms", folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def synchronised(*layers: nn.Module) -> nn.Module:
    model = nn.Sequential(*copy.deepcopy(layers))
    synchronise_batch_norms(model)
    return model.train()


def summed(first: dict, second: dict) -> dict:
    return {name: value + second[name] for name, value in first.items()}


def test_two_ranks_with_fillers_give_what_torch_gives_on_all_rows_at_once(ranks):
    torch.manual_seed(0)
    layer = norms.norm().train()
    layers = [rank["layer"] for rank in ranks]
    for step, rows in enumerate(norms.activations()):
        inputs = rows.clone().requires_grad_()
        output = layer(inputs)
        norms.loss_of(output, step, slice(0, 7)).backward()
        outputs = torch.cat([rank["outputs"][step] for rank in layers])
        torch.testing.assert_close(outputs, output.detach(), atol=1e-4, rtol=1e-4)
        gradients = torch.cat([rank["of_inputs"][step][:-1] for rank in layers])
        torch.testing.assert_close(gradients, inputs.grad, atol=1e-4, rtol=1e-4)
        assert not any(rank["of_inputs"][step][-1].any() for rank in layers)
    weights = summed(layers[0]["of_weights"], layers[1]["of_weights"])
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(weights[f"0.{name}"], parameter.grad, atol=1e-3, rtol=1e-4)
    for rank in layers:
        for name, value in layer.state_dict().items():
            torch.testing.assert_close(rank["state"][f"0.{name}"], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("way", ["plain", "checkpointed"])
def test_an_encoder_on_two_ranks_has_the_gradients_and_statistics_of_one(ranks, way, image_encoder):
    alone = norms.through_encoder(image_encoder, None, checkpointed=False)
    gradients = summed(ranks[0][way]["gradients"], ranks[1][way]["gradients"])
    torch.testing.assert_close(gradients, alone["gradients"], atol=2e-4, rtol=2e-3)
    for rank in ranks:
        torch.testing.assert_close(rank[way]["state"], alone["state"], atol=1e-5, rtol=1e-4)
    first, second = (rank[way]["state"] for rank in ranks)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("kind, shape", [(nn.BatchNorm1d, (6, 4)), (nn.BatchNorm2d, (6, 4, 2, 3))])
def test_alone_it_is_torchs_batch_norm_in_both_modes(kind, shape, momentum):
    layer = kind(4, momentum=momentum)
    ours = synchronised(layer)
    for seed in range(3):
        rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 2
        torch.testing.assert_close(ours(rows), layer(rows))
    torch.testing.assert_close(ours[0].state_dict(), layer.state_dict())
    torch.testing.assert_close(ours.eval()(rows), layer.eval()(rows))


def test_gradients_are_those_of_finite_differences_fillers_included():
    ours = synchronised(nn.BatchNorm2d(2).double())
    rows = torch.randn(4, 2, 2, 1, dtype=torch.double) * 2
    with counted_rows(torch.tensor([True, True, False, True]), update=False):
        rows.requires_grad_()
        # statistics are float32, so differences are coarse
        assert torch.autograd.gradcheck(ours, rows, eps=1e-2, atol=2e-3, rtol=1e-2)


def test_timms_activation_and_names_stay():
    layer = BatchNormAct2d(4, act_layer=nn.SiLU)
    ours = synchronised(layer)
    rows = torch.randn(5, 4, 3, 3)
    torch.testing.assert_close(ours(rows), layer.train()(rows))
    assert ours[0].state_dict().keys() == layer.state_dict().keys()


def test_fillers_change_nothing_and_a_batch_of_them_leaves_the_statistics_alone():
    ours = synchronised(nn.BatchNorm2d(3))
    rows = torch.randn(4, 3, 2, 2)
    expected = ours(rows)
    state = copy.deepcopy(ours.state_dict())
    filled = torch.cat([rows, torch.full((2, 3, 2, 2), torch.nan)])
    with counted_rows(torch.tensor([True] * 4 + [False] * 2)):
        other = synchronised(nn.BatchNorm2d(3))
        torch.testing.assert_close(other(filled)[:4], expected)
    torch.testing.assert_close(other.state_dict(), state)
    with counted_rows(torch.tensor([False] * 4)):
        assert ours(rows).isfinite().all()
    torch.testing.assert_close(ours.state_dict(), state)


def test_half_precision_inputs_are_normalised_in_float32():
    ours = synchronised(nn.BatchNorm2d(3))
    rows = (torch.randn(64, 3, 8, 8) + 100).bfloat16()
    outputs = ours(rows)
    assert outputs.dtype == torch.bfloat16
    expected = nn.BatchNorm2d(3)(rows.float())
    torch.testing.assert_close(outputs.float(), expected, atol=0.02, rtol=0.01)


def norms_of(image_encoder, layers: int, batch_norm: str):
    spec = EncoderSpec(
        "image", str(image_encoder), trainable_layers=layers, image_size=32, batch_norm=batch_norm
    )
    encoder = build_encoder(spec).train()
    modules = list(encoder.modules())
    ours = [module for module in modules if isinstance(module, SynchronisedBatchNorm)]
    return encoder, ours, [module for module in modules if isinstance(module, nn.BatchNorm2d)]


def test_only_norms_of_trainable_layers_are_synchronised_the_rest_stays_in_eval_mode(image_encoder):
    for layers, batch_norm in ((-1, "frozen"), (0, "synchronised")):
        encoder, ours, theirs = norms_of(image_encoder, layers, batch_norm)
        assert not ours and theirs and not any(layer.training for layer in theirs)
    encoder, ours, theirs = norms_of(image_encoder, 2, "synchronised")
    assert ours and theirs and not any(layer.training for layer in theirs)
    assert all(layer.training for layer in ours)
    statistics = {name for name in encoder.trained_state() if "running" in name}
    assert len(statistics) == 2 * len(ours)
    encoder.eval()
    assert not any(module.training for module in encoder.modules())
