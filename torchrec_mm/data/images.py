"""Encoded pictures: checked before they are decoded."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from torchrec_mm.data.augment import augment
from torchrec_mm.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_IMAGE_PIXELS = 50_000_000


def decode_image(
    source: bytes | Path,
    size: int,
    where: str,
    max_pixels: int = MAX_IMAGE_PIXELS,
    seed: int | None = None,
) -> np.ndarray:
    """Decode one picture to a fixed size; the whole picture, without keeping its proportions.

    The size in the file's header is checked before a pixel is decoded. Transparent parts become
    white, the camera's rotation mark is applied.

    Args:
        source: encoded JPEG, PNG or WebP, or the path of such a file.
        size: height and width of the result in pixels.
        where: what an error names, e.g. "items/ image of item_id 7".
        max_pixels: width times height above which the picture is refused.
        seed: of the augmentation, see ``augment``; None for none.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        InputError: not a picture, truncated, or more than ``max_pixels`` wide times high.
    """
    if isinstance(source, Path) and not source.is_file():
        raise InputError(f"{where} must be an existing file, got {source}")
    try:
        with warnings.catch_warnings(), _open(source) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f"{where} must have at most {max_pixels} pixels, got {width} x {height}"
                )
            image.draft("RGB", (2 * size, 2 * size))
            picture = _on_white(ImageOps.exif_transpose(image))
            if seed is not None:
                picture = augment(picture, seed)
            return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{where} must have at most {max_pixels} pixels: {error}") from error
    except UnidentifiedImageError as error:  # its message names an object, not the picture
        raise InputError(f"{where} must be a JPEG, PNG or WebP picture, and is not") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{where} must be a JPEG, PNG or WebP picture: {error}") from error


def decode_images(
    sources: Sequence[bytes | Path],
    size: int,
    max_pixels: int = MAX_IMAGE_PIXELS,
    seeds: np.ndarray | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Decode a batch; what cannot be decoded is left out, not complained about.

    Pillow does the work; Pillow-SIMD, installed in its place, does it faster.

    Args:
        sources, size, max_pixels: as of ``decode_image``.
        seeds: (n,) int64, to augment each picture by; None leaves them as they are.

    Returns:
        (n, 3, size, size) uint8 RGB, and ok (n,) bool, False where it holds zeros instead.
    """
    pictures = np.zeros((len(sources), size, size, 3), dtype=np.uint8)
    ok = np.ones(len(sources), dtype=bool)
    for i, source in enumerate(sources):
        seed = None if seeds is None else int(seeds[i])
        try:
            pictures[i] = decode_image(source, size, "image", max_pixels, seed)
        except InputError:
            ok[i] = False
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), ok


def _open(source: bytes | Path) -> Image.Image:
    # Pillow only warns between its own limit and twice that; ours is checked by the caller
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    white = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, transparent).convert("RGB")
