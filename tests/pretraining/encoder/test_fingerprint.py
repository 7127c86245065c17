"""Equal vectors, equal fingerprint; any change to what makes them, another one."""

import shutil

import pytest
import torch

from torchrec_mm.pretraining.encoder import fingerprint
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder.encoder_files import load_encoder, save_encoder
from torchrec_mm.pretraining.encoder.fingerprint import encoder_fingerprint
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder, build_item_encoder


@pytest.fixture
def build(image_encoder, text_encoder):
    def build_(image=image_encoder, text=text_encoder, size=32, layers=1) -> ItemEncoder:
        specs = [
            EncoderSpec("image", str(image), trainable_layers=layers, image_size=size),
            EncoderSpec("text", str(text), trainable_layers=layers, image_size=size),
        ]
        return build_item_encoder(specs)

    return build_


def fingerprints(encoder: ItemEncoder) -> dict[str, str]:
    return {space: encoder_fingerprint(encoder, space) for space in encoder.spaces}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {space for space in before if before[space] != after[space]}


def test_it_is_16_hex_digits_and_another_for_each_space(build):
    given = fingerprints(build())
    assert len(set(given.values())) == 3
    assert all(len(word) == 16 and int(word, 16) >= 0 for word in given.values())


def test_folder_training_mode_checkpointing_and_use_do_not_matter(
    build, image_encoder, text_encoder, tmp_path
):
    before = fingerprints(build())
    copies = [shutil.copytree(f, tmp_path / f.name) for f in (image_encoder, text_encoder)]
    encoder = build(*copies, layers=-1).eval()
    encoder.checkpoint_gradients()
    encoder.encoders["text"].backbone.tokenise(["word1 word2 word3"])
    assert fingerprints(encoder) == before


def test_saved_and_loaded_it_stays(build, tmp_path):
    encoder = build()
    save_encoder(tmp_path, "scl", encoder)
    assert fingerprints(load_encoder(tmp_path).encoder) == fingerprints(encoder)
    alone = load_encoder(tmp_path, ["text"]).encoder
    assert encoder_fingerprint(alone, "text") == encoder_fingerprint(encoder, "text")


def test_any_weight_or_stored_statistic_changes_the_spaces_it_takes_part_in(build):
    encoder = build()
    before = fingerprints(encoder)
    for name, value in list(encoder.state_dict().items())[::4]:
        part = name.split(".")[1]
        spaces = {"fused"} if name.startswith("gate") else {part, "fused"}
        old = value.clone()
        value[(-1,) * value.ndim] += 1
        assert changed(before, fingerprints(encoder)) == spaces, name
        value.copy_(old)


def test_the_preprocessing_of_pictures_changes_it(build, monkeypatch):
    before = fingerprints(build())
    assert changed(before, fingerprints(build(size=48))) == {"image", "fused"}
    encoder = build()
    encoder.encoders["image"].backbone.std[0, 0] += 1e-3
    assert changed(before, fingerprints(encoder)) == {"image", "fused"}
    monkeypatch.setattr(fingerprint, "PREPROCESSING", 999)
    assert changed(before, fingerprints(build())) == set(before)


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("tokenizer.json", "word7", "word77"),
        ("tokenizer_config.json", '"model_max_length": 16', '"model_max_length": 15'),
        ("1_Pooling/config.json", '"mean"', '"cls"'),
        ("config.json", '"num_attention_heads": 2', '"num_attention_heads": 4'),
        ("config.json", '"hidden_act": "gelu"', '"hidden_act": "relu"'),
        ("config.json", '"is_decoder": false', '"is_decoder": true'),
    ],
)
def test_vocabulary_longest_text_and_what_weights_do_not_tell_change_it(
    build, text_encoder, tmp_path, file, old, new
):
    before = fingerprints(build())
    copied = shutil.copytree(text_encoder, tmp_path / "text")
    target = copied / file
    text = target.read_text()
    assert old in text
    target.write_text(text.replace(old, new))
    assert changed(before, fingerprints(build(text=copied))) == {"text", "fused"}


def test_it_does_not_depend_on_the_device_order_or_contiguity_of_weights(build):
    encoder = build()
    before = fingerprints(encoder)
    with torch.no_grad():
        weight = encoder.encoders["text"].head.projection.weight
        weight.set_(weight.T.contiguous().T)
    assert fingerprints(encoder) == before
