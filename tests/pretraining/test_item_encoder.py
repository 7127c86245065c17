"""Rows to vectors of every space, whatever each row lacks."""

import pytest
import torch

from tests.pretraining.sides import side_of
from torchrec_mm.pretraining.encoder import EncoderSpec
from torchrec_mm.pretraining.item_encoder import ItemEncoder, build_item_encoder

PICTURES = torch.randint(
    0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
TEXTS = ["word1 word2", "word3", "word4 word5 word6", "mot7"]


@pytest.fixture
def build(image_encoder, text_encoder):
    names = {"image": str(image_encoder), "text": str(text_encoder)}

    def build_(*modalities: str, layers: int = -1) -> ItemEncoder:
        specs = [EncoderSpec(modality, names[modality], layers, 32) for modality in modalities]
        return build_item_encoder(specs)

    return build_


def test_each_row_gets_the_vector_of_its_own_content_and_zeros_where_it_has_none(build):
    encoder = build("image", "text")
    rows = [
        {"image": PICTURES[0], "text": TEXTS[0]},
        {"text": TEXTS[1]},
        {},
        {"image": PICTURES[3]},
    ]
    vectors = encoder(side_of(encoder, rows))
    assert {space: v.shape for space, v in vectors.items()} == {
        space: (4, width) for space, width in encoder.widths.items()
    }
    for i, row in enumerate(rows):
        alone = encoder(side_of(encoder, [row]))
        for space in encoder.spaces:
            torch.testing.assert_close(vectors[space][i], alone[space][0])
            has = space in row or (space == "fused" and row)
            assert vectors[space][i].norm().item() == pytest.approx(1 if has else 0, abs=1e-5)


def test_spaces_are_the_modalities_and_with_both_of_them_a_fused_one(build):
    assert build("text").spaces == ("text",) and build("image").widths == {"image": 128}
    assert build("text", "image").spaces == ("image", "text", "fused")
    assert build("image", "text").widths == {"image": 128, "text": 128, "fused": 256}


def test_a_side_of_fillers_gives_zeros_and_reaches_every_trained_weight(build):
    encoder = build("image", "text")
    vectors = encoder(side_of(encoder, [{}, {}]))
    assert all(not v.any() for v in vectors.values())
    sum(v.sum() for v in vectors.values()).backward()
    without = {n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None}
    assert all("pooler" in name for name in without)  # a part of BERT that no vector depends on
    assert all(not p.grad.any() for p in encoder.parameters() if p.grad is not None)


def test_features_kept_from_a_frozen_backbone_give_the_same_vectors(build):
    encoder = build("image", layers=0)
    side = side_of(encoder, [{"image": picture} for picture in PICTURES])
    with torch.no_grad():
        features = encoder.encoders["image"].backbone(side.inputs["image"])
    kept = type(side)(side.num_rows, {"image": features}, side.rows, side.mask, side.ids)
    torch.testing.assert_close(encoder(kept)["image"], encoder(side)["image"])


def test_trained_state_names_what_is_trained_and_nothing_else(build):
    encoder = build("image", "text", layers=1)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert encoder.trained_state().keys() == trained
    assert any(name.startswith("gate.") for name in trained)
    assert any(name.startswith("encoders.image.backbone.") for name in trained)
