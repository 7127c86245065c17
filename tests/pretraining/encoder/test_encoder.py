"""Which layers of an encoder train, and what it makes of its inputs."""

import pytest
import torch

from tests.pretraining.tiny import PICTURES
from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.encoder import Encoder, EncoderSpec, build_encoder


def trained_names(encoder: Encoder) -> set[str]:
    return {name for name in encoder.trained_state() if name.startswith("backbone")}


def test_with_no_trainable_layer_only_the_head_trains(specs):
    for spec in specs(layers=0):
        encoder = build_encoder(spec)
        assert encoder.backbone_is_frozen and not trained_names(encoder)
        assert any(name.startswith("head") for name in encoder.trained_state())


def test_layers_are_unfrozen_from_the_last_one_backwards_and_minus_one_is_all(specs):
    for modality in ("image", "text"):
        whole = build_encoder(*specs(modality, layers=-1))
        everything = {f"backbone.{name}" for name, _ in whole.backbone.named_parameters()}
        assert trained_names(whole) == everything
        one, two = (trained_names(build_encoder(*specs(modality, layers=n))) for n in (1, 2))
        assert set() < one < two <= everything
    assert not any("embeddings" in name or "layer.0" in name for name in one)
    assert any("layer.1" in name for name in one)


def test_more_layers_than_there_are_is_refused(specs):
    for spec in specs(layers=99):
        with pytest.raises(InputError, match=r"trainable_layers must be in \[-1, \d+\].*got 99"):
            build_encoder(spec)


def test_floating_point_inputs_are_features_and_go_to_the_head_alone(specs):
    encoder = build_encoder(*specs("image"))
    features = encoder.backbone(PICTURES)
    torch.testing.assert_close(encoder(features), encoder(PICTURES))
    assert torch.equal(encoder(features), encoder.head(features))


@pytest.mark.parametrize("field", ["modality", "batch_norm"])
def test_unknown_words_in_a_spec_are_refused(field):
    fields = {"modality": "image", "backbone": "x", "trainable_layers": 0, "image_size": 32}
    with pytest.raises(InputError, match=f"{field} must be .*, got other"):
        EncoderSpec(**fields | {field: "other"})
