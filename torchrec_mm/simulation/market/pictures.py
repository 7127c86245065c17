"""Product pictures drawn from hidden attributes: the same item never looks the same twice.

What the item is: outline, colour, pattern, material, trim. What distracts: background (two
colours, sometimes its own stripes), place, size, turn, light, tint, pixel noise. Everything is
drawn for a block of pictures at once; letters: B pictures, S pixels a side. Colours are planes,
(B, 3, S, S), until the end: numpy is slow on an innermost axis of three.
"""

import io

import numpy as np
from PIL import Image

PALETTE = np.array(
    [(205, 35, 40), (235, 130, 30), (240, 215, 60), (50, 150, 60), (40, 165, 165),
     (40, 75, 190), (125, 60, 165), (240, 140, 185), (115, 70, 40), (130, 132, 138)],
    dtype=np.float32,
)  # fmt: skip
ANGLES = 256  # resolution of an outline
JPEG_QUALITY = 88


def draw_pictures(attributes: np.ndarray, image_size: int, seed: list[int]) -> list[bytes]:
    """Encode one JPEG a row of ``attributes`` (B, 5) int64, with nuisance drawn from ``seed``."""
    pixels = render(attributes, image_size, np.random.default_rng(seed))
    return [encode_jpeg(picture) for picture in pixels]


def encode_jpeg(pixels: np.ndarray) -> bytes:
    """(S, S, 3) uint8 -> JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def render(attributes: np.ndarray, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw (B, S, S, 3) uint8 pictures of items with ``attributes`` (B, 5) int64."""
    shape, colour, pattern, material, trim = attributes.T
    rows = len(attributes)
    axis = np.linspace(-1, 1, image_size, dtype=np.float32)
    x, y = axis[None, None, :], axis[None, :, None]
    u, v = _item_coordinates(x, y, rows, rng)
    radius = np.sqrt(u * u + v * v)
    depth = radius / _edge(shape, u, v)  # < 1 inside the item

    bright = _pattern(pattern, u, v) * _material(material, u, v, rng)
    item = PALETTE[colour][:, :, None, None] * bright[:, None]
    item = _with_trim(item, trim, depth, radius, v)
    inside = np.clip((1 - depth) * 14 + 0.5, 0, 1)[:, None]
    picture = _background(x, y, rows, rng)
    picture += (item - picture) * inside
    picture *= _light(x, y, rows, rng)
    picture += rng.standard_normal((rows, 1, image_size, image_size), dtype=np.float32) * 6
    pixels = np.clip(picture, 0, 255, out=picture).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def _edge(shape: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Distance from the item's centre to its outline, towards each pixel: (B, S, S)."""
    angle = (np.arctan2(v, u) * np.float32(ANGLES / (2 * np.pi)) + ANGLES).astype(np.int32)
    return np.take(OUTLINES, angle % ANGLES + shape[:, None, None].astype(np.int32) * ANGLES)


def _item_coordinates(
    x: np.ndarray, y: np.ndarray, rows: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions in the item's own frame (its outline is about 1 wide): (B, S, S) each."""
    shift = _column(rng.uniform(-0.25, 0.25, (2, rows)))
    scale = _column(rng.uniform(0.5, 0.85, rows))
    turn = _column(rng.uniform(-0.35, 0.35, rows))
    dx, dy = (x - shift[0]) / scale, (y - shift[1]) / scale
    return np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx


def _pattern(pattern: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Brightness in [0.45, 1] by pattern: (B, S, S). Only the rows that have it are computed."""
    dark = np.zeros(np.broadcast_shapes(u.shape, v.shape), dtype=bool)
    for value, draw in enumerate(PATTERN_RULES):
        rows = np.flatnonzero(pattern == value)
        if draw is not None and len(rows):
            dark[rows] = draw(u[rows], v[rows])
    return np.where(dark, np.float32(0.45), np.float32(1))


def _material(
    material: np.ndarray, u: np.ndarray, v: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Brightness factor around 1 by material: (B, S, S)."""
    factor = np.ones(u.shape, dtype=np.float32)
    for value, draw in enumerate(MATERIAL_RULES):
        rows = np.flatnonzero(material == value)
        if draw is not None and len(rows):
            factor[rows] = draw(u[rows], v[rows], rng)
    return factor


def _with_trim(
    item: np.ndarray, trim: np.ndarray, depth: np.ndarray, radius: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """Paint edge, badge or band over the item: (B, 3, S, S)."""
    wide = trim[:, None, None]
    edge = depth > 0.8
    dark = (edge & (wide == 1)) | ((np.abs(v) < 0.09) & (wide == 4))
    light = (edge & (wide == 2)) | ((radius < 0.22) & (wide == 3))
    paint = np.where(dark, np.float32(25), np.float32(240))[:, None]
    return np.where((dark | light)[:, None], paint, item)


def _background(x: np.ndarray, y: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Two colours fading into each other along some direction, every third one striped."""
    colours = rng.uniform(30, 255, (2, rows, 3, 1, 1)).astype(np.float32)
    direction = _column(rng.uniform(0, 2 * np.pi, rows))
    along = np.cos(direction) * x + np.sin(direction) * y
    striped = _column(rng.random(rows)) < 1 / 3
    frequency = _column(rng.uniform(4, 14, rows))
    mix = np.where(striped, np.sin(along * frequency) > 0, (along + 1.5) / 3).astype(np.float32)
    return colours[0] + (colours[1] - colours[0]) * mix[:, None]


def _light(x: np.ndarray, y: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Gain by place and colour channel: (B, 3, S, S)."""
    gain = _column(rng.uniform(0.65, 1.2, rows))
    slope = _column(rng.uniform(-0.25, 0.25, (2, rows)))
    tint = rng.uniform(0.88, 1.12, (rows, 3, 1, 1)).astype(np.float32)
    return (gain + slope[0] * x + slope[1] * y)[:, None] * tint


def _column(values: np.ndarray) -> np.ndarray:
    """(..., B) -> (..., B, 1, 1) float32."""
    return values[..., None, None].astype(np.float32)


def _polygon(sides: int, turn: float) -> np.ndarray:
    """Distance from the centre to the edge of a regular polygon: (ANGLES,)."""
    sector = 2 * np.pi / sides
    angle = (TURNS + turn) % sector - sector / 2
    return np.cos(sector / 2) / np.cos(angle)


def _ellipse(width: float, height: float) -> np.ndarray:
    return 1 / np.hypot(np.cos(TURNS) / width, np.sin(TURNS) / height)


TURNS = np.arange(ANGLES) / ANGLES * 2 * np.pi
OUTLINES = np.stack(
    [
        _polygon(4, 0),  # every outline is seen from its centre: one radius an angle
        np.clip(np.maximum(_ellipse(1, 0.33), _ellipse(0.33, 1)), 0, 1),  # a cross
        _polygon(3, np.pi / 6),
        _ellipse(0.5, 1),
        _polygon(4, np.pi / 4),
        _ellipse(1, 0.5),
        _polygon(6, 0),
        1 - 0.55 * np.abs(np.sin(2.5 * TURNS + 0.25 * np.pi)),  # a star
        np.ones(ANGLES),
        0.8 + 0.2 * np.sign(np.sin(8 * TURNS)),  # a gear
        0.68 + 0.32 * np.cos(2 * TURNS),  # a peanut
        0.72 + 0.28 * np.cos(3 * TURNS),  # a clover
    ]
).astype(np.float32)
PATTERN_RULES = (
    None,
    lambda u, v: np.sin(v * 14) > 0,
    lambda u, v: np.sin(u * 22) > 0.3,
    lambda u, v: (np.sin(u * 11) > 0) ^ (np.sin(v * 11) > 0),
    lambda u, v: np.sin(u * 13) * np.sin(v * 13) > 0.35,
    lambda u, v: np.sin((v + np.abs((u * 2) % 1 - 0.5)) * 14) > 0,
)
MATERIAL_RULES = (
    None,
    lambda u, v, rng: 0.85 + 0.9 * np.exp(-8 * ((u + 0.3) ** 2 + (v + 0.35) ** 2)),
    lambda u, v, rng: 1 + 0.16 * rng.standard_normal(u.shape, dtype=np.float32),
    lambda u, v, rng: 1 + 0.25 * np.sin(u * 45),
    lambda u, v, rng: 1 + 0.22 * np.sin(u * 38) * np.sin(v * 38),
    lambda u, v, rng: 1 + 0.5 * (rng.random(u.shape, dtype=np.float32) > 0.9),
)
