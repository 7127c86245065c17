"""Query photos: a customer's snapshot of a product whose picture is given, not drawn.

Heavy door: decoding given pictures imports torch. ``studio`` opens it only when there are any.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from torchrec_mm.data.content.images import decode_image
from torchrec_mm.simulation.market.pictures import encode_jpeg


def snapshots(pictures: list[bytes], image_size: int, seed: list[int]) -> list[bytes]:
    """One JPEG of ``image_size`` pixels a side for each encoded picture, seeded.

    Raises:
        InputError: something is no picture.
    """
    rng = np.random.default_rng(seed)
    return [snapshot(picture, image_size, rng) for picture in pictures]


def snapshot(picture: bytes, image_size: int, rng: np.random.Generator) -> bytes:
    """Turn, crop, mirror, recolour and blur one encoded picture."""
    pixels = decode_image(picture, image_size * 5 // 4, "items column image")
    fill = tuple(rng.integers(256, size=3).tolist())
    image = Image.fromarray(pixels)
    image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, fillcolor=fill)
    side = rng.uniform(0.7, 1.0) * image.width
    left, top = rng.uniform(0, image.width - side, size=2)
    image = image.resize(
        (image_size, image_size),
        Image.Resampling.BILINEAR,
        box=(left, top, left + side, top + side),
    )
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.3))
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    return encode_jpeg(np.asarray(image))
