"""Pictures are checked before they are decoded, and decoded only when asked for."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from torchrec_mm.data.augment import augment
from torchrec_mm.data.images import decode_image, decode_images
from torchrec_mm.errors import InputError


def encoded(colour=(200, 30, 60), size=(20, 30), form="PNG", mode="RGB", **save) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, form, **save)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that only claims a size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, b"IDAT")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_every_promised_format_decodes_to_rgb_of_the_wanted_size(form):
    decoded = decode_image(encoded(form=form), 8, "picture")
    assert decoded.shape == (8, 8, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - (200, 30, 60)).max() <= 6


def test_transparent_parts_become_white_and_grey_becomes_rgb():
    assert (decode_image(encoded((0, 0, 0, 0), mode="RGBA"), 4, "picture") == 255).all()
    assert (decode_image(encoded(77, mode="L"), 4, "picture") == 77).all()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_the_cameras_rotation_mark_is_applied(form):
    picture = Image.new("RGB", (40, 20), "black")
    picture.paste("white", (0, 0, 20, 20))  # left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    file = io.BytesIO()
    picture.save(file, form, exif=exif)
    decoded = decode_image(file.getvalue(), 8, "picture")
    assert decoded[0].mean() > 200 and decoded[-1].mean() < 55


@pytest.mark.parametrize(
    "junk", [b"", b"not a picture", encoded()[:60], encoded(form="JPEG")[:200]]
)
def test_what_cannot_be_decoded_is_refused_by_name(junk):
    with pytest.raises(InputError, match="items/ image of 7 must be a JPEG, PNG or WebP picture"):
        decode_image(junk, 8, "items/ image of 7")


def test_a_format_that_was_not_promised_is_refused():
    with pytest.raises(InputError, match="must be a JPEG, PNG or WebP"):
        decode_image(encoded(form="GIF"), 8, "picture")


@pytest.mark.parametrize("size", [(101, 100), (20_000, 20_000), (60_000, 60_000)])
def test_a_huge_picture_is_refused_by_its_header_alone(size):
    with pytest.raises(InputError, match="at most 10000 pixels"):
        decode_image(png_header(*size), 8, "picture", max_pixels=10_000)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"image of 50 must be an existing file, got .*gone\.png"):
        decode_image(tmp_path / "gone.png", 8, "image of 50")


def test_many_pictures_decode_as_each_alone_and_the_bad_ones_are_zeros(tmp_path):
    (tmp_path / "blue.png").write_bytes(encoded((0, 0, 255)))
    bad = [b"", encoded()[:60], tmp_path / "gone.png", png_header(60_000, 60_000)]
    good = [encoded(), tmp_path / "blue.png", encoded((9, 9, 9), form="JPEG")]
    images, ok = decode_images([*good, *bad, encoded(size=(101, 100))], 8, max_pixels=10_000)
    assert images.shape == (8, 3, 8, 8) and images.dtype == torch.uint8
    assert ok.tolist() == [True] * 3 + [False] * 5
    assert not images[3:].any()
    for source, image in zip(good, images, strict=False):
        assert (image.permute(1, 2, 0).numpy() == decode_image(source, 8, "picture")).all()
    nothing, none = decode_images([], 8)
    assert nothing.shape == (0, 3, 8, 8) and none.shape == (0,)


def test_each_picture_is_augmented_by_its_own_seed():
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    source = file.getvalue()
    images, _ = decode_images([source] * 3, 8, seeds=np.array([4, 5, 4]))
    assert (images[0] == images[2]).all() and (images[0] != images[1]).any()
    expected = augment(Image.fromarray(noise), 8, 5)
    assert (images[1].permute(1, 2, 0).numpy() == expected).all()
    assert (decode_image(source, 8, "picture", seed=5) == expected).all()


def test_odd_marks_in_a_file_print_nothing(recwarn):
    garbled = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0"
    decode_image(encoded(form="JPEG", exif=garbled), 8, "picture")
    assert not recwarn
