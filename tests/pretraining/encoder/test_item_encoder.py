"""Rows to vectors of every space, whatever each row lacks."""

from dataclasses import replace

import pytest
import torch

from tests.pretraining.pairs.sides import side_of
from tests.pretraining.tiny import PICTURES
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder, build_item_encoder
from torchrec_mm.pretraining.scl.momentum import momentum_copy, update_momentum

TEXTS = ["word1 word2", "word3", "word4 word5 word6", "mot7"]


@pytest.fixture
def build(specs):
    def build_(*modalities: str, layers: int = -1, norm: str = "frozen", **how) -> ItemEncoder:
        return build_item_encoder(specs(*modalities, layers=layers, norm=norm, **how))

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
    assert build("text").spaces == ("text",) and build("image").widths == {"image": 384}
    assert build("text", "image").spaces == ("image", "text", "fused")
    assert build("image", "text").widths == {"image": 384, "text": 384, "fused": 768}


def test_the_off_the_shelf_encoder_without_loss_is_the_features_of_the_same_backbones(build):
    encoder = build("image", "text", width=5)
    whole = encoder.with_all_features()
    side = side_of(encoder, [{"image": PICTURES[0], "text": TEXTS[0]}, {"text": TEXTS[1]}])
    vectors = whole(side)
    for modality, part in encoder.encoders.items():
        assert whole.encoders[modality].backbone is part.backbone
        features = part.backbone(side.inputs[modality])
        torch.testing.assert_close(vectors[modality][: len(features)], features)
    assert whole.widths["fused"] == whole.widths["image"] + whole.widths["text"]
    assert encoder.widths == {"image": 5, "text": 5, "fused": 10}


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
    kept = replace(side, inputs={"image": features})
    torch.testing.assert_close(encoder(kept)["image"], encoder(side)["image"])


def test_trained_state_names_what_is_trained_and_nothing_else(build):
    encoder = build("image", "text", layers=1)
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert encoder.trained_state().keys() == trained
    assert any(name.startswith("gate.") for name in trained)
    assert any(name.startswith("encoders.image.backbone.") for name in trained)


def test_fillers_beside_real_rows_change_neither_vectors_nor_statistics(build):
    with_filler, without = (build("image", norm="synchronised").train() for _ in range(2))
    side = side_of(without, [{"image": picture} for picture in PICTURES])
    inputs = torch.cat([side.inputs["image"], PICTURES[:1] // 2])
    rows = torch.cat([side.rows["image"], torch.tensor([4])])
    filled = replace(side, inputs={"image": inputs}, rows={"image": rows})
    torch.testing.assert_close(with_filler(filled)["image"], without(side)["image"])
    torch.testing.assert_close(with_filler.state_dict(), without.state_dict())


def test_a_momentum_copy_shares_frozen_weights_and_follows_the_trained_ones(build):
    encoder = build("image", "text", layers=1)
    encoder.checkpoint_gradients()
    slow = momentum_copy(encoder)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 1
    side = side_of(encoder, [{"image": PICTURES[0], "text": TEXTS[0]}])
    assert not torch.allclose(slow(side)["fused"], encoder(side)["fused"], atol=0.01)
    update_momentum(slow, encoder, 0.0)
    assert torch.equal(slow(side)["fused"], encoder(side)["fused"])


def test_fused_vectors_teach_the_gate_alone(build):
    encoder = build("image", "text")
    torch.nn.init.normal_(encoder.gate.weigh[-1].weight)
    side = side_of(encoder, [{"image": PICTURES[0], "text": TEXTS[0]}])
    encoder(side)["fused"][:, ::3].sum().backward()
    taught = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert taught == {f"gate.{name}" for name, _ in encoder.gate.named_parameters()}
