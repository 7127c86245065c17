"""Encoders on disk."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pretraining.pairs.sides import side_of
from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.encoder_files import load_encoder, save_encoder
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder, build_item_encoder
from torchrec_mm.pretraining.scl.momentum import momentum_copy

GREY = torch.full((3, 32, 32), 90, dtype=torch.uint8)
ROWS = [{"image": GREY, "text": "word1 word2"}, {"text": "word3"}]


@pytest.fixture
def trained(specs):
    def build(layers: int = 1, batch_norm: str = "synchronised") -> ItemEncoder:
        encoder = build_item_encoder(specs(layers=layers, norm=batch_norm))
        for value in encoder.trained_state().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.05)
        return encoder.eval()

    return build


@pytest.mark.parametrize("layers, norm", [(0, "frozen"), (1, "synchronised"), (-1, "synchronised")])
def test_a_saved_encoder_gives_the_same_vectors(trained, tmp_path, layers, norm):
    encoder = trained(layers, norm)
    save_encoder(tmp_path, "scl", encoder)
    loaded = load_encoder(tmp_path)
    assert (loaded.name, loaded.encoder.specs) == ("scl", encoder.specs)
    side = side_of(encoder, ROWS)
    vectors = loaded.encoder(side)
    for space, expected in encoder(side).items():
        assert torch.equal(vectors[space], expected)


def test_a_momentum_copy_is_saved_with_its_own_weights(trained, tmp_path):
    encoder, slow = trained(), momentum_copy(trained())
    with torch.no_grad():
        for parameter in slow.encoders["text"].head.parameters():
            parameter *= 0.5
    save_encoder(tmp_path, "scl", encoder, weights=slow)
    side = side_of(encoder, ROWS)
    assert torch.equal(load_encoder(tmp_path).encoder(side)["text"], slow(side)["text"])


def test_one_modality_alone_can_be_loaded_without_the_other_and_the_gate(trained, tmp_path):
    encoder = trained()
    save_encoder(tmp_path, "scl", encoder)
    (tmp_path / "encoder.json").write_text(
        (tmp_path / "encoder.json").read_text().replace(encoder.specs["image"].backbone, "gone")
    )
    text = load_encoder(tmp_path, ["text"]).encoder
    assert text.spaces == ("text",)
    side = side_of(encoder, ROWS)
    assert torch.equal(text(side)["text"], encoder(side)["text"])
    with pytest.raises(InputError, match="image_encoder must be .*got gone"):
        load_encoder(tmp_path)


@pytest.fixture
def saved(trained, tmp_path):
    encoder = trained()
    save_encoder(tmp_path, "clip-e", build_item_encoder([encoder.specs["text"]]))
    return tmp_path


def test_an_encoder_from_before_widths_were_named_is_128_wide(specs, tmp_path):
    encoder = build_item_encoder(specs("text", width=128)).eval()
    save_encoder(tmp_path, "scl", encoder)
    edit(tmp_path, lambda described: described["modalities"]["text"].pop("width"))
    side = side_of(encoder, [{"text": "word1 word2"}])
    loaded = load_encoder(tmp_path).encoder
    assert loaded.specs == encoder.specs and torch.equal(
        loaded(side)["text"], encoder(side)["text"]
    )


def edit(folder, change):
    described = json.loads((folder / "encoder.json").read_text())
    change(described)
    (folder / "encoder.json").write_text(json.dumps(described))


def test_a_backbone_with_other_weights_than_in_training_is_refused(saved):
    edit(saved, lambda described: described["modalities"]["text"].update(frozen="0" * 16))
    with pytest.raises(InputError, match="must have the weights it was trained with"):
        load_encoder(saved)


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda d: d.update(format=1), "format must be 2, got 1"),
        (lambda d: d.pop("modalities"), "must describe an encoder"),
        (lambda d: d["modalities"]["text"].pop("frozen"), "must describe an encoder"),
        (lambda d: d["modalities"]["text"].update(other=1), "must describe an encoder"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(saved, change, complaint):
    edit(saved, change)
    with pytest.raises(InputError, match=complaint):
        load_encoder(saved)


def test_a_tensor_too_few_or_of_another_shape_is_refused(saved):
    tensors = load_file(saved / "encoder.safetensors")
    name = "encoders.text.head.projection.bias"
    for wrong in ({}, {name: torch.zeros(3)}):
        rest = {n: value for n, value in tensors.items() if n != name}
        save_file(rest | wrong, saved / "encoder.safetensors")
        with pytest.raises(InputError, match=f"exactly the trained tensors, see {name}"):
            load_encoder(saved)


def test_damaged_or_missing_files_are_refused(saved, tmp_path):
    with pytest.raises(InputError, match="modality must be one the encoder was trained for, text"):
        load_encoder(saved, ["image"])
    with pytest.raises(InputError, match="encoder must be a run of apps.pretrain"):
        load_encoder(tmp_path / "nowhere")
    weights = (saved / "encoder.safetensors").read_bytes()
    (saved / "encoder.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="must hold whole encoder files"):
        load_encoder(saved)


def test_the_description_names_every_part_of_the_spec(trained, tmp_path):
    encoder = trained()
    save_encoder(tmp_path, "scl", encoder)
    described = json.loads((tmp_path / "encoder.json").read_text())
    for modality, spec in encoder.specs.items():
        assert described["modalities"][modality].items() >= asdict(spec).items()
