"""A text or a picture finds the item it is of; vectors that it has no cosine with are refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pretraining.pairs.sides import side_of
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.neighbours import Neighbours
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.item_vectors.writer import write_item_vectors
from torchrec_mm.pretraining.embed.queries import encode_query
from torchrec_mm.pretraining.encoder.encoder_files import save_encoder
from torchrec_mm.pretraining.encoder.fingerprint import origin_of
from torchrec_mm.pretraining.encoder.item_encoder import build_item_encoder

TEXTS = ["word1 word2", "word3", "word4 word5 word6", "mot7"]


@pytest.fixture(scope="module")
def room(tmp_path_factory, specs):
    """A run of scl, one of clip-e, pictures 0.png to 3.png, and the items' vectors by space."""
    folder = tmp_path_factory.mktemp("queries")
    encoder = build_item_encoder(specs()).eval()
    for name in ("scl", "clip-e"):
        save_encoder(folder / name, name, encoder)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for item, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{item}.png")
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    rows = [{"image": p, "text": t} for p, t in zip(pictures, TEXTS, strict=True)]
    with torch.inference_mode():
        vectors = encoder(side_of(encoder, rows))
    for space in encoder.spaces:
        for name, place in (("scl", folder), ("clip-e", folder / "of-clip-e")):
            values, origin = vectors[space].numpy(), origin_of(name, encoder, space)
            write(place / space, values, space, origin)
    return folder


def write(folder, values, modality, origin):
    meta = {"dtype": "float32", "encoder": "scl", "modality": modality, "origin": origin}
    write_item_vectors(folder, np.arange(len(values)), values, **meta)


@pytest.mark.parametrize(
    ("space", "by"), [("image", ["image"]), ("text", ["text"]), ("fused", ["image", "text"])]
)
def test_the_content_of_an_item_is_its_vector(room, space, by):
    vectors = ItemVectors.open(room / space)
    for item in range(4):
        image, text = room / f"{item}.png", TEXTS[item]
        query = encode_query(
            room / "scl", vectors, text if "text" in by else None, image if "image" in by else None
        )
        np.testing.assert_allclose(query[0], vectors.values[item], atol=1e-5)


@pytest.mark.parametrize("by", ["image", "text"])
def test_half_of_the_content_is_compared_with_that_half_of_fused_vectors(room, by):
    vectors, part = ItemVectors.open(room / "fused"), ItemVectors.open(room / by)
    given = {"text": None, "image": None} | {by: TEXTS[2] if by == "text" else room / "2.png"}
    query = encode_query(room / "scl", vectors, **given)
    (found,) = Neighbours(vectors).search(query, 4).named(vectors.item_ids)
    expected = part.values @ part.values[2] * 0.5**0.5  # an untrained gate weighs 1/2 each
    assert [item for item, _ in found] == np.argsort(-expected).tolist()
    assert [cosine for _, cosine in found] == pytest.approx(sorted(expected)[::-1], abs=1e-5)


def test_a_text_searches_pictures_where_the_run_aligned_them_only(room):
    pictures, texts = ItemVectors.open(room / "image"), ItemVectors.open(room / "text")
    aligned = ItemVectors.open(room / "of-clip-e" / "image")
    query = encode_query(room / "clip-e", aligned, TEXTS[1], None)
    np.testing.assert_allclose(query[0], texts.values[1], atol=1e-5)
    with pytest.raises(InputError, match="image vectors of scl must be searched by image alone, "):
        encode_query(room / "scl", pictures, TEXTS[1], None)
    with pytest.raises(InputError, match="searched by text alone, got image and text"):
        encode_query(room / "clip-e", texts, TEXTS[1], room / "1.png")


@pytest.mark.parametrize("modality", ["image", "text", "fused"])
def test_vectors_of_another_origin_are_refused(room, tmp_path, modality):
    values = ItemVectors.open(room / modality).values
    write(tmp_path / "v", np.array(values), modality, "0123456789abcdef")
    vectors = ItemVectors.open(tmp_path / "v")
    given = (TEXTS[0], None) if modality != "image" else (None, room / "0.png")
    with pytest.raises(InputError, match="vectors must have the origin of encoder .*scl, "):
        encode_query(room / "scl", vectors, *given)


def test_a_picture_that_cannot_be_read_is_refused(room, tmp_path):
    vectors = ItemVectors.open(room / "image")
    with pytest.raises(InputError, match="image must be an existing file"):
        encode_query(room / "scl", vectors, None, tmp_path / "missing.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="image must be a JPEG, PNG or WebP picture"):
        encode_query(room / "scl", vectors, None, tmp_path / "bad.png")


def test_a_run_of_one_modality_has_no_fused_vectors_to_search(room, specs, tmp_path):
    only_text = build_item_encoder(specs("text"))
    save_encoder(tmp_path / "run", "scl", only_text)
    with pytest.raises(InputError, match="modality must be one the encoder was trained for"):
        encode_query(tmp_path / "run", ItemVectors.open(room / "fused"), TEXTS[0], None)
