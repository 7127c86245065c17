"""How a run begins: what is read, which features are cached, heads of what can be read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pretraining.packed_room import SIZE
from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.encoder import EncoderSpec
from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder
from torchrec_mm.pretraining.judge.judge import evenly_spread
from torchrec_mm.pretraining.pairs.side_reader import (
    FeatureSource,
    PictureSource,
    TextSource,
    check_corrupt,
)
from torchrec_mm.pretraining.scl.fit_heads import fit_heads, reader_for

LIMITS = {"max_pixels": 10**6, "corrupt_share": 0.0}


@pytest.fixture
def build(image_encoder, text_encoder):
    def call(image_layers=0, text_layers=0, size=SIZE):
        return build_item_encoder(
            [
                EncoderSpec(modality, str(path), trainable_layers=layers, image_size=size, width=16)
                for modality, path, layers in (
                    ("image", image_encoder, image_layers),
                    ("text", text_encoder, text_layers),
                )
            ]
        )

    return call


def cached(packed) -> set[Path]:
    return set((packed.folder / "features").glob("*"))


def test_frozen_backbones_are_read_as_features_and_trained_ones_as_they_are(build, packed, worker):
    sources = reader_for(build(1, 0), packed, **LIMITS, worker=worker).sources
    assert isinstance(sources["image"], PictureSource) and sources["image"].max_pixels == 10**6
    assert isinstance(sources["text"], FeatureSource)
    sources = reader_for(build(0, 1), packed, **LIMITS, worker=worker).sources
    assert isinstance(sources["image"], FeatureSource)
    assert isinstance(sources["text"], TextSource)


def test_features_are_cached_by_all_that_they_depend_on(build, packed, worker):
    reader_for(build(), packed, **LIMITS, worker=worker)
    before = cached(packed)
    reader_for(build(), packed, **LIMITS, worker=worker)
    assert cached(packed) == before
    for change in ({"size": 48}, {"max_pixels": 10**5}, {"std": 0.3}, {"longest": 3}):
        encoder = build(size=change.get("size", SIZE))
        if "std" in change:
            encoder.encoders["image"].backbone.std.fill_(change["std"])
        if "longest" in change:
            encoder.encoders["text"].backbone.tokenise._module.max_seq_length = change["longest"]
        limit = {name: change[name] for name in change.keys() & LIMITS}
        reader_for(encoder, packed, **LIMITS | limit, worker=worker)
        assert len(cached(packed) - before) == 1, change
        before = cached(packed)


def test_heads_are_the_same_of_cached_features_and_of_pictures_read_anew(build, packed, worker):
    encoders = build(0, 0), build(1, 1)
    for encoder in encoders:
        fit_heads(encoder, reader_for(encoder, packed, **LIMITS, worker=worker), worker)
    for modality in ("image", "text"):
        ours, theirs = (each.encoders[modality].head.projection for each in encoders)
        strongest = (weight[:3].detach() for weight in (ours.weight, theirs.weight))
        torch.testing.assert_close(*strongest, atol=1e-3, rtol=0)


@pytest.mark.parametrize("layers", [0, 1])
def test_items_without_a_picture_that_can_be_decoded_are_refused(build, packed, worker, layers):
    encoder = build(layers, 0)
    reader = reader_for(encoder, packed, max_pixels=1, corrupt_share=1.0, worker=worker)
    with pytest.raises(InputError, match="items must have pictures that can be .* got none of 39"):
        fit_heads(encoder, reader, worker)


@pytest.mark.parametrize(
    ("corrupt", "pictures", "share", "passes"),
    [
        (0, 0, 0.0, True),
        (0, 10, 0.0, True),
        (1, 10**6, 0.0, False),
        (1, 2, 0.01, True),
        (2, 100, 0.01, False),
        (2, 200, 0.01, True),
        (9, 9, 1.0, True),
    ],
)
def test_a_share_of_corrupt_pictures_passes_and_one_alone(corrupt, pictures, share, passes):
    if passes:
        check_corrupt(corrupt=corrupt, pictures=pictures, share=share)
    else:
        with pytest.raises(InputError, match=f"{corrupt} of {pictures} could not be decoded"):
            check_corrupt(corrupt=corrupt, pictures=pictures, share=share)


def test_rows_are_spread_from_the_first_to_the_last():
    rows = np.arange(10, 110)
    assert evenly_spread(rows, 200).tolist() == rows.tolist()
    assert evenly_spread(rows, 4).tolist() == [10, 43, 76, 109]
    assert evenly_spread(rows, 1).tolist() == [10]
