"""Backbones: features, and gradients with fewer activations kept."""

import copy

import pytest
import torch

from tests.pretraining.tiny import PICTURES
from torchrec_mm.pretraining.encoder.backbone_weights import load_image_backbone, load_text_backbone
from torchrec_mm.pretraining.encoder.backbones import Backbone, ImageBackbone

TEXTS = ["word1 word2", "word3", "word4 word5 word6"]


@pytest.fixture(params=["image", "text"])
def backbone(request, image_encoder, text_encoder) -> Backbone:
    if request.param == "image":
        return load_image_backbone(str(image_encoder))
    return load_text_backbone(str(text_encoder))


def inputs_of(backbone: Backbone, rows: slice = slice(None)):
    return backbone.tokenise(TEXTS[rows]) if hasattr(backbone, "tokenise") else PICTURES[:3][rows]


def gradients(backbone: Backbone, scale: float = 1.0) -> tuple[list[torch.Tensor], int]:
    """Gradients of the parameters, and how many tensors were kept for them."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = (backbone(inputs_of(backbone))[:, ::3] * scale).sum()
    used = [p for n, p in backbone.named_parameters() if "pooler" not in n]
    return list(torch.autograd.grad(loss, used)), len(kept)


def test_features_have_unit_length_and_do_not_depend_on_the_rest_of_the_batch(backbone):
    backbone.train()
    together = backbone(inputs_of(backbone))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    for i in range(3):
        alone = backbone(inputs_of(backbone, slice(i, i + 1)))
        torch.testing.assert_close(alone, together[i : i + 1])


class Seen(torch.nn.Module):
    """Looks like a timm model; its features are what it was given."""

    pretrained_cfg = {"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.25, 1.0)}

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.given = pictures
        return pictures.flatten(1)


def test_pictures_are_normalised_as_the_model_was_trained():
    backbone = ImageBackbone(Seen())
    white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    backbone(torch.cat([white, 0 * white]))
    assert backbone.model.given.flatten(1).tolist() == [[1, 3, 1], [-1, -1, 0]]


def test_checkpointing_keeps_fewer_activations_and_gives_equal_gradients(backbone):
    plain = backbone.train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.checkpoint_gradients()
    expected, kept = gradients(plain)
    actual, kept_at_blocks_only = gradients(checkpointed)
    assert kept_at_blocks_only < kept / 2
    torch.testing.assert_close(actual, expected)


def test_a_copy_of_a_checkpointed_backbone_computes_with_its_own_weights(backbone):
    backbone.checkpoint_gradients()
    copied = copy.deepcopy(backbone)
    before = backbone(inputs_of(backbone))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(torch.linspace(0, 1, parameter.numel()).view_as(parameter))
    torch.testing.assert_close(backbone(inputs_of(backbone)), before)
    assert not torch.allclose(copied(inputs_of(backbone)), before, atol=0.01)


def test_blocks_hold_one_layer_each(backbone):
    layers = [{id(p) for p in layer} for layer in backbone.layers()]
    blocks = [{id(p) for p in block.parameters()} for block in backbone.blocks()]
    assert len(blocks) >= 2
    assert all(any(block <= layer for layer in layers) for block in blocks)
