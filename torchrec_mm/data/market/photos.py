"""Query photos: a customer's snapshot of a product whose picture is given, not drawn."""

import io

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from torchrec_mm.data.market.pictures import JPEG_QUALITY
from torchrec_mm.errors import InputError


def snapshots(pictures: list[bytes], image_size: int, seed: list[int]) -> list[bytes]:
    """One JPEG of ``image_size`` pixels a side for each encoded picture, seeded."""
    rng = np.random.default_rng(seed)
    return [snapshot(picture, image_size, rng) for picture in pictures]


def snapshot(picture: bytes, image_size: int, rng: np.random.Generator) -> bytes:
    """Crop, turn, mirror, blur and recolour one picture.

    Raises:
        InputError: the bytes are no picture PIL can read.
    """
    try:
        image = Image.open(io.BytesIO(picture)).convert("RGB")
    except (OSError, ValueError) as error:
        raise InputError(f"items column image must hold encoded pictures: {error}") from error
    fill = tuple(rng.integers(256, size=3).tolist())
    image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, fillcolor=fill)
    side = rng.uniform(0.7, 1.0)
    width, height = side * image.width, side * image.height
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    image = image.resize(
        (image_size, image_size),
        Image.Resampling.BILINEAR,
        box=(left, top, left + width, top + height),
    )
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.3))
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
