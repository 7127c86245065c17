"""Query photos, seen a little differently each time."""

import math

import numpy as np
from PIL import Image, ImageEnhance

AREA = (0.5, 1.0)  # share of the picture that is kept
RATIO = (3 / 4, 4 / 3)  # of the kept part's sides, relative to the picture's
JITTER = 0.2  # brightness, contrast and colour change by at most this share


def augment(image: Image.Image, seed: int) -> Image.Image:
    """Crop, mirror and colour a picture, as the seed says and nothing else.

    A random part of it, in half of the cases mirrored, with brightness, contrast and colour
    changed. Proportions of the part are near those of the picture.

    Args:
        image: RGB of any size.
        seed: at least 0.

    Returns:
        A new picture, smaller than or as large as ``image``.

    Source: Szegedy et al., CVPR 2015, arXiv:1409.4842, section 6; Chen et al., ICML 2020,
    arXiv:2002.05709, appendix A, weaker here: a colour is often what was searched for.
    """
    random = np.random.default_rng(seed)
    area = random.uniform(*AREA)
    stretch = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])) / 2)
    width = max(1, round(image.width * min(1.0, math.sqrt(area) * stretch)))
    height = max(1, round(image.height * min(1.0, math.sqrt(area) / stretch)))
    left = int(random.integers(image.width - width + 1))
    top = int(random.integers(image.height - height + 1))
    part = image.crop((left, top, left + width, top + height))
    if random.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        part = kind(part).enhance(random.uniform(1 - JITTER, 1 + JITTER))
    return part
