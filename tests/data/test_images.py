"""Pictures are checked before they are decoded, and decoded only when asked for."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from torchrec_mm.data.images import Pictures, decode_image
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


def test_the_cameras_rotation_mark_is_applied():
    picture = Image.new("RGB", (20, 10), "black")
    picture.paste("white", (0, 0, 10, 10))  # left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
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


def pictures(folder: Path, **columns) -> Pictures:
    table = pa.table(columns)
    encoded_column, paths = (
        table[name] if name in columns else None for name in ("image", "image_path")
    )
    rows = table.num_rows
    order = np.arange(rows)[::-1]
    return Pictures(encoded_column, paths, folder, order, np.arange(rows) + 50, "items/ image", 8)


def test_bytes_and_paths_may_be_mixed_and_rows_follow_the_order(tmp_path):
    (tmp_path / "blue.png").write_bytes(encoded((0, 0, 255)))
    found = pictures(
        tmp_path,
        image=pa.array([encoded((255, 0, 0)), None, None], pa.binary()),
        image_path=pa.array([None, "blue.png", None], pa.string()),
    )
    assert found.present.tolist() == [False, True, True]
    loaded = found.load(np.array([2, 1]))
    assert loaded[:, :, 4, 4].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert found.load(np.array([], dtype=int)).shape == (0, 3, 8, 8)


def test_equal_pictures_have_equal_keys_and_missing_ones_none(tmp_path):
    red, blue = encoded((255, 0, 0)), encoded((0, 0, 255))
    keys = pictures(tmp_path, image=pa.array([red, None, blue, red], pa.binary())).keys()
    assert keys[0] == keys[3] != keys[1] and keys[2] is None


def test_a_missing_file_and_a_bad_picture_are_named_with_their_id(tmp_path):
    gone = pictures(tmp_path, image_path=pa.array(["gone.png"], pa.string()))
    with pytest.raises(InputError, match=r"image of 50 must be an existing file, got .*gone\.png"):
        gone.load(np.array([0]))
    bad = pictures(tmp_path, image=pa.array([b"bad", encoded()], pa.binary()))
    with pytest.raises(InputError, match="image of 51 must be a JPEG"):
        bad.load(np.array([0, 1]))
