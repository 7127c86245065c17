"""Features of frozen backbones, computed once: the backbone's own, whatever interrupted them."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.helpers.runs import Stopped
from tests.pretraining.packed_room import SIZE
from torchrec_mm.pretraining.encoder.encoder import Encoder, build_encoder
from torchrec_mm.pretraining.pairs import features
from torchrec_mm.pretraining.pairs.features import Features, cache_features, distinct_contents
from torchrec_mm.pretraining.pairs.side_reader import PictureSource, TextSource


@pytest.fixture(scope="module")
def built(specs) -> dict[str, Encoder]:
    return {spec.modality: build_encoder(spec) for spec in specs()}


@pytest.fixture(scope="module")
def sources(packed, built):
    image, text = (packed.by_modality[name] for name in ("image", "text"))
    tokenise = built["text"].backbone.tokenise
    return {"image": PictureSource(image, SIZE), "text": TextSource(text, tokenise)}


@pytest.fixture
def cache(worker, packed, built, sources, tmp_path, monkeypatch):
    """Caches a modality's features in parts of 32; notes how many rows each call encodes."""
    monkeypatch.setattr(features, "PART_ROWS", 32)
    encoded, tokens = [], []

    def call(modality="text", load=None, stop_before=None) -> Features:
        def encode(inputs):
            if len(encoded) == stop_before:
                raise Stopped
            vectors = built[modality].backbone(inputs)
            encoded.append(len(vectors))
            if modality == "text":
                tokens.append(inputs["attention_mask"].sum(dim=1).tolist())
            return vectors

        contents, source = packed.by_modality[modality], sources[modality]
        loads = source.lengths, load or source.load
        folder = tmp_path / "cached" / modality
        return cache_features(folder, contents, *loads, encode, 8, worker, "features")

    call.encoded, call.tokens = encoded, tokens
    return call


@pytest.mark.parametrize("modality", ["image", "text"])
def test_cached_features_are_the_backbones(cache, packed, built, sources, modality):
    contents = packed.by_modality[modality]
    cached, backbone = cache(modality), built[modality].backbone
    rows = np.flatnonzero(contents.present)[[5, 0, -1, 5, 60]]
    values, ok = cached.of(rows)
    with torch.no_grad():
        expected = backbone(sources[modality].load(rows, None)[0])
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=1e-5)
    assert ok.all() and cached.corrupt == 0 and cached.width == expected.shape[1]
    assert (cached.place >= 0).tolist() == contents.present.tolist()


def test_each_distinct_content_is_encoded_once_and_not_again(cache, packed):
    contents = packed.by_modality["text"]
    distinct = {int(content) for content in contents.content} - {-1}
    assert len(distinct) < contents.present.sum()
    assert distinct_contents(contents).tolist() == sorted(distinct)
    first = cache()
    assert sum(cache.encoded) == len(distinct) == len(first.values)
    again = cache(stop_before=len(cache.encoded))
    assert np.array_equal(again.values, first.values)


def test_texts_of_as_many_tokens_share_a_batch(cache):
    cache()
    parts = [cache.tokens[start : start + 4] for start in range(0, len(cache.tokens), 4)]
    for part in parts:
        for shorter, longer in pairwise(part):
            assert max(shorter) <= min(longer)
    assert any(len(set(batch)) > 1 for part in parts for batch in part)


def test_an_interrupted_call_goes_on_with_what_it_left(cache, tmp_path):
    with pytest.raises(Stopped):
        cache(stop_before=6)  # of 4 a part: in mid-part
    assert not (tmp_path / "cached" / "text").exists()
    whole = cache()
    of_first_call, of_second = cache.encoded[:6], cache.encoded[6:]
    assert sum(of_second) == len(whole.values) - 32
    assert sum(of_first_call) > 32
    (left,) = (tmp_path / "cached").iterdir()
    assert left.name == "text"
    assert sorted(file.name for file in left.iterdir()) == ["features.npy", "ok.npy"]


def test_pictures_that_cannot_be_decoded_are_noted(cache, packed, sources):
    rows = np.flatnonzero(packed.by_modality["image"].present)

    def load(asked, seeds):
        inputs, ok = sources["image"].load(asked, seeds)
        return inputs, ok & ~np.isin(asked, rows[[2, 70]])

    cached = cache("image", load)
    assert cached.corrupt == 2
    assert cached.of(rows[[1, 2, 70]])[1].tolist() == [True, False, False]
