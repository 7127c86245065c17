"""Query photos changed at random, as another customer might have taken them."""

import math

import numpy as np
from PIL import Image, ImageEnhance

LEAST_AREA = 0.5
MOST_STRETCH = 4 / 3
JITTER = 0.2
COLOURS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def augment(picture: Image.Image, size: int, seed: int) -> np.ndarray:
    """Crop, flip and recolour a picture.

    The crop has half of the picture's area or more, and 3/4 to 4/3 of its proportions; every other
    picture is flipped left to right; brightness, contrast and saturation change by up to a fifth.
    ``seed`` alone decides, in any thread or process; no global generator is read or changed.

    Args:
        picture: RGB of any size.
        size: height and width of the result in pixels.
        seed: non-negative.

    Returns:
        (size, size, 3) uint8.

    Source: Szegedy et al., CVPR 2015, arXiv:1409.4842, section 6, for the crop. Ours: crops are
    larger, and their proportions relative to the picture's, which is squeezed to a square anyway.
    """
    generator = np.random.default_rng(seed)
    box = _crop(picture.size, generator)
    picture = picture.resize((size, size), Image.Resampling.BICUBIC, box)
    if generator.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for colour in COLOURS:
        picture = colour(picture).enhance(generator.uniform(1 - JITTER, 1 + JITTER))
    return np.asarray(picture)


def _crop(
    size: tuple[int, int], generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge in pixels."""
    area = generator.uniform(LEAST_AREA, 1)
    stretch = math.exp(generator.uniform(-1, 1) * math.log(MOST_STRETCH))
    share = np.minimum(1, np.sqrt([area * stretch, area / stretch]))
    start = generator.uniform(0, 1 - share)
    left, upper, right, lower = np.concatenate([start, start + share]) * np.tile(size, 2)
    return left, upper, right, lower
