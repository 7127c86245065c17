"""Pictures are checked before they are decoded, and decoded only when asked for."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from torchrec_mm.data.content.augment import augment
from torchrec_mm.data.content.images import decode_image, decode_images, upright_size
from torchrec_mm.errors import InputError


def encoded(colour=(200, 30, 60), size=(20, 30), form="PNG", mode="RGB", **save) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, form, **save)
    return file.getvalue()


def chunk(content: bytes) -> bytes:
    """A part of a PNG with its length and checksum, as the standard has it."""
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))


def png_of(*contents: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, contents))


def png_header(width: int, height: int) -> bytes:
    """A PNG that only claims a size."""
    return png_of(b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_every_promised_format_decodes_to_rgb_of_the_wanted_size(form):
    decoded = decode_image(encoded(form=form), 8, "picture")
    assert decoded.shape == (8, 8, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - (200, 30, 60)).max() <= 6


def test_transparent_parts_become_white_and_grey_becomes_rgb():
    assert (decode_image(encoded((0, 0, 0, 0), mode="RGBA"), 4, "picture") == 255).all()
    assert (decode_image(encoded(77, mode="L"), 4, "picture") == 77).all()


def png(pixels: np.ndarray, bits: int, colour: int, transparent: bytes = b"") -> bytes:
    """A PNG of (H, bytes of a row) uint8 rows, its header and tRNS as the standard has them."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour] * bits
    height, width = len(pixels), pixels.shape[1] * 8 // samples
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    trns = [b"tRNS" + transparent] if transparent else []
    return png_of(header, *trns, b"IDAT" + zlib.compress(rows), b"IEND")


def deep(*values: int) -> np.ndarray:
    """16-bit samples as a row of bytes, twice."""
    return np.tile(np.array(values, ">u2").view(np.uint8), (2, 1))


def colours(source: bytes) -> list[list[int]]:
    """RGB of the pixels of the first row, decoded without a change of size."""
    width = picture_of(source).width
    wide = decode_image(source, max(width, 2), "picture")
    return wide[0, :width].tolist()


@given(
    values=st.lists(st.integers(0, 65_535), min_size=2, max_size=2),
    channels=st.sampled_from([(0, 1), (2, 3), (4, 2), (6, 4)]),
)
@settings(deadline=None)
def test_sixteen_bits_a_channel_become_eight_in_proportion(values, channels):
    colour, number = channels
    opaque = [65_535] if colour >= 4 else []
    solid = number - len(opaque)
    source = png(deep(*(v for value in values for v in [value] * solid + opaque)), 16, colour)
    expected = [[value / 257] * 3 for value in values]
    assert np.abs(np.array(colours(source)) - expected).max() <= 1


def test_each_grey_of_sixteen_bits_becomes_the_nearest_of_eight():
    greys = np.arange(65_536).reshape(256, 256)
    source = png(greys.astype(">u2").view(np.uint8), 16, 0)
    decoded = decode_image(source, 256, "picture")
    assert (decoded == np.round(greys / 257)[..., None]).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "RGB"])
def test_every_kind_of_picture_that_png_can_hold_becomes_rgb(mode):
    half = Image.new("L", (4, 4), 0)
    half.paste(255, (0, 0, 2, 4))
    file = io.BytesIO()
    half.convert(mode).save(file, "PNG")
    assert colours(file.getvalue()) == [[255] * 3] * 2 + [[0] * 3] * 2


@pytest.mark.parametrize("mode", ["CMYK", "L", "YCbCr"])
def test_every_kind_of_picture_that_jpeg_can_hold_becomes_rgb(mode):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (180, 180, 180)).convert(mode).save(file, "JPEG", quality=100)
    assert np.abs(decode_image(file.getvalue(), 8, "picture").astype(int) - 180).max() <= 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (png(np.array([[0b0001_1011]] * 4, np.uint8), 2, 0, b"\0\1"), [0, 255, 170, 255]),
        (png(np.array([[0x3C], [0x3C]], np.uint8), 4, 0, b"\0\3"), [255, 204]),
        (png(np.array([[7, 40], [7, 40]], np.uint8), 8, 0, b"\0\7"), [255, 40]),
        (png(deep(1000, 25_700), 16, 0, struct.pack(">H", 1000)), [255, 100]),
        (png(deep(*[1000] * 3, *[25_700] * 3), 16, 2, struct.pack(">3H", *[1000] * 3)), [255, 100]),
    ],
    ids=["2 bits", "4 bits", "8 bits", "16 bits", "16 bits of each colour"],
)
def test_the_colour_that_png_calls_transparent_becomes_white_whatever_the_bits(source, expected):
    assert colours(source) == [[grey] * 3 for grey in expected]


def test_of_an_animation_the_first_picture_counts():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for form in ("WEBP", "PNG"):
        file = io.BytesIO()
        first.save(file, form, save_all=True, append_images=[second], lossless=True)
        assert (decode_image(file.getvalue(), 4, "picture") == (255, 0, 0)).all()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mark", range(10))
def test_the_cameras_rotation_mark_is_applied(form, mark):
    picture = Image.fromarray(np.array([[0, 80], [160, 240]], np.uint8)).resize((40, 20))
    exif = Image.Exif()
    exif[0x0112] = mark
    file = io.BytesIO()
    picture.save(file, form, exif=exif)
    source = file.getvalue()
    turned = ImageOps.exif_transpose(picture_of(source))
    decoded = decode_image(source, 8, "picture")
    expected = np.asarray(turned.convert("RGB").resize((8, 8)))
    assert np.abs(decoded[::7, ::7].astype(int) - expected[::7, ::7]).max() < 40
    assert upright_size(source) == turned.size


def test_a_mark_that_could_not_be_written_again_does_not_spoil_the_picture():
    # Orientation 6, and a page number (0x0129) that is a text.
    marks = "4d4d002a00000008 0002 01290002000000036869 0000 01120003000000010006 0000 00000000"
    source = encoded(size=(40, 20), form="JPEG", exif=b"Exif\0\0" + bytes.fromhex(marks))
    with pytest.raises(struct.error):
        ImageOps.exif_transpose(picture_of(source))
    assert upright_size(source) == (20, 40)
    assert decode_image(source, 8, "picture").shape == (8, 8, 3)


def picture_of(source: bytes) -> Image.Image:
    return Image.open(io.BytesIO(source))


@pytest.mark.parametrize(
    "junk", [b"", b"not a picture", encoded()[:60], encoded(form="JPEG")[:200]]
)
def test_what_cannot_be_decoded_is_refused_by_name(junk):
    with pytest.raises(InputError, match="items/ image of 7 must be a JPEG, PNG or WebP picture"):
        decode_image(junk, 8, "items/ image of 7")


@pytest.mark.parametrize("form, mode", [("GIF", "RGB"), ("TIFF", "F"), ("TIFF", "I;16")])
def test_a_format_that_was_not_promised_is_refused(form, mode):
    with pytest.raises(InputError, match="must be a JPEG, PNG or WebP"):
        decode_image(encoded(1 if mode != "RGB" else "red", form=form, mode=mode), 8, "picture")


def test_a_text_in_a_picture_that_would_fill_the_memory_is_refused():
    bomb = chunk(b"zTXtComment\0\0" + zlib.compress(bytes(1 << 26)))
    source = encoded()
    with pytest.raises(InputError, match="must be a JPEG, PNG or WebP"):
        decode_image(source[:33] + bomb + source[33:], 8, "picture")


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


@given(
    source=st.sampled_from([encoded(form=form) for form in ("PNG", "JPEG", "WEBP")]),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
)
@settings(deadline=None)
def test_a_garbled_picture_is_decoded_or_refused_and_nothing_else(source, changes):
    garbled = bytearray(source)
    for place, byte in changes:
        garbled[place % len(garbled)] = byte
    with contextlib.suppress(InputError):
        assert decode_image(bytes(garbled), 8, "picture").shape == (8, 8, 3)


def test_whatever_pillow_stumbles_over_is_refused(monkeypatch):
    monkeypatch.setattr(Image.Image, "getexif", lambda image: {}["mark"])
    with pytest.raises(InputError, match="must be a JPEG, PNG or WebP picture: 'mark'"):
        decode_image(encoded(), 8, "picture")


def test_odd_marks_in_a_file_print_nothing(recwarn):
    garbled = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0"
    decode_image(encoded(form="JPEG", exif=garbled), 8, "picture")
    assert not recwarn
