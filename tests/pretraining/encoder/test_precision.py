"""Half precision: vectors stay float32, gradients close to those of full precision."""

import math

import pytest
import torch

from torchrec_mm.pretraining.encoder.backbone_weights import load_text_backbone
from torchrec_mm.pretraining.encoder.encoder import Encoder, EncoderSpec
from torchrec_mm.pretraining.encoder.precision import Precision

CPU = torch.device("cpu")
TEXTS = ["word1 word2", "word3"]


def step(name: str, clip_norm: float, factor: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """One SGD step on w = (1, 2) with gradient factor * (3, 4): (w after it, norm returned)."""
    precision = Precision(name, CPU)
    weights = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weights], lr=1.0)
    precision.backward(factor * (weights * torch.tensor([3.0, 4.0])).sum())
    norm = precision.step(optimizer, [weights], clip_norm)
    return weights.detach(), norm


@pytest.mark.parametrize("name", ["float32", "bf16", "fp16"])
def test_gradients_are_clipped_to_the_norm_whatever_the_scale_of_the_loss(name):
    weights, norm = step(name, 2.5)
    assert norm.item() == pytest.approx(5)
    assert weights.tolist() == pytest.approx([1 - 1.5, 2 - 2.0], abs=1e-5)
    weights, norm = step(name, math.inf)
    assert weights.tolist() == pytest.approx([1 - 3.0, 2 - 4.0], abs=1e-5)
    assert norm.item() == pytest.approx(5)


def test_with_fp16_a_step_that_overflows_is_left_out_and_the_scale_halved():
    weights, norm = step("fp16", 1.0, factor=1e38)
    assert weights.tolist() == [1, 2] and not norm.isfinite()
    precision = Precision("fp16", CPU)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    precision.backward((weight * 1e38).sum())
    before = precision.state_dict()["scale"]
    precision.step(optimizer, [weight], 1.0)
    assert precision.state_dict()["scale"] == before / 2
    other = Precision("fp16", CPU)
    other.load_state_dict(precision.state_dict())
    assert other.state_dict() == precision.state_dict()


@pytest.mark.parametrize("name", ["float32", "bf16", "fp16"])
def test_vectors_are_float32_of_unit_length_and_near_those_of_full_precision(name, text_encoder):
    encoder = Encoder(
        load_text_backbone(str(text_encoder)),
        EncoderSpec("text", str(text_encoder), trainable_layers=-1, image_size=32),
    )
    tokens = encoder.backbone.tokenise(TEXTS)
    precision = Precision(name, CPU)
    dtypes = []
    encoder.head.projection.register_forward_hook(lambda *a: dtypes.append(a[2].dtype))
    with precision.autocast():
        vectors = encoder(tokens)
    assert dtypes == [precision.dtype] and vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert (vectors * encoder(tokens)).sum(dim=1).min() > 0.999
    precision.backward(vectors[:, 0].sum())
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in encoder.parameters())
