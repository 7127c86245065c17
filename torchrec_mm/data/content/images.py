"""Encoded pictures: checked before they are decoded."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from torchrec_mm.data.content.augment import augment
from torchrec_mm.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_IMAGE_PIXELS = 50_000_000
TURNS = {  # what makes a picture upright, by the camera's rotation mark
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
GREY_STEPS = {"L;2": 85, "L;4": 17}  # between two greys of as many bits, in 8


def decode_image(
    source: bytes | Path,
    size: int,
    where: str,
    *,
    max_pixels: int = MAX_IMAGE_PIXELS,
    seed: int | None = None,
) -> np.ndarray:
    """Decode one picture to a fixed size; the whole picture, without keeping its proportions.

    The size in the file's header is checked before a pixel is decoded. Transparent parts become
    white, the camera's rotation mark is applied, 16 bits a channel become 8, and of an animation
    the first picture counts.

    Args:
        source: encoded JPEG, PNG or WebP, or the path of such a file.
        size: height and width of the result in pixels.
        where: what an error names, e.g. "items/ image of item_id 7".
        max_pixels: width times height above which the picture is refused.
        seed: of the changes that ``augment`` makes; None leaves the picture as it is.

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
                rule = f"{where} must have at most {max_pixels} pixels"
                raise InputError(f"{rule}, got {width} x {height}")
            _scale_transparent_colour(image)
            image.draft("RGB", (2 * size, 2 * size))
            picture = _upright(_on_white(image), _orientation(image))
            if seed is not None:
                return augment(picture, size, seed)
            return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
    except (InputError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{where} must have at most {max_pixels} pixels: {error}") from error
    except UnidentifiedImageError as error:  # its message names an object, not the picture
        raise InputError(f"{where} must be a JPEG, PNG or WebP picture, and is not") from error
    except Exception as error:  # a garbled file makes Pillow stumble in whatever way
        raise InputError(f"{where} must be a JPEG, PNG or WebP picture: {error}") from error


def decode_images(
    sources: Sequence[bytes | Path],
    size: int,
    *,
    max_pixels: int = MAX_IMAGE_PIXELS,
    seeds: Sequence[int] | np.ndarray | None = None,
) -> tuple[Tensor, np.ndarray]:
    """Decode n pictures, those that can be; ``decode_image`` says how.

    Pillow does nearly all of the work: Pillow-SIMD, where installed in its place, is faster.

    Args:
        sources: n encoded pictures, or paths of such.
        size: height and width of the result in pixels.
        max_pixels: width times height above which a picture counts as one that cannot be decoded.
        seeds: n non-negative integers, to augment each picture by; None leaves them as they are.

    Returns:
        (n, 3, size, size) uint8 RGB, channels last in memory, and ok (n,) bool; zeros where ok is
        False: no picture, truncated, too large, or no such file.
    """
    images = np.zeros((len(sources), size, size, 3), dtype=np.uint8)
    ok = np.ones(len(sources), dtype=bool)
    for i, source in enumerate(sources):
        seed = None if seeds is None else int(seeds[i])
        try:
            images[i] = decode_image(source, size, "picture", max_pixels=max_pixels, seed=seed)
        except InputError:
            ok[i] = False
    return torch.from_numpy(images).permute(0, 3, 1, 2), ok


def upright_size(source: bytes | Path) -> tuple[int, int]:
    """Width and height of a picture that ``decode_image`` takes, its rotation mark applied."""
    with warnings.catch_warnings(), _open(source) as image:
        return image.size[::-1] if _orientation(image) in range(5, 9) else image.size


def _open(source: bytes | Path) -> ImageFile.ImageFile:
    # Pillow warns of pictures above its own limit of pixels, where the caller checks ours, and of
    # metadata that it cannot read, which is not used.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _scale_transparent_colour(image: ImageFile.ImageFile) -> None:
    """PNG names its transparent colour in the file's own bits; Pillow compares it with 8 of them.

    To be called before the pixels are decoded: they alone tell how many bits those were.
    """
    colour = image.info.get("transparency")
    bits = image.tile[0][3] if image.tile else None
    if colour is not None and bits in GREY_STEPS:
        image.info["transparency"] = colour * GREY_STEPS[bits]
    if colour is not None and bits == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in colour)


def _orientation(image: Image.Image) -> int | None:
    return image.getexif().get(ExifTags.Base.Orientation)


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    # ImageOps.exif_transpose would write all marks anew, and fail at those that it cannot.
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _on_white(image: Image.Image) -> Image.Image:
    """RGB, without transparency."""
    if image.mode.startswith("I"):
        return _from_16_bits(np.asarray(image), image.info.get("transparency"))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    transparent = image.convert("RGBA")
    white = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, transparent).convert("RGB")


def _from_16_bits(grey: np.ndarray, transparent: int | None) -> Image.Image:
    """(H, W) of 0 to 65535 in RGB; Pillow's own conversion cuts off all above 255."""
    grey8 = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257
    if transparent is not None:
        grey8[grey == transparent] = 255
    return Image.fromarray(grey8).convert("RGB")
