"""Pictures of many items in a pool of processes, the same bytes however many processes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from torchrec_mm.simulation.market.catalogue import Catalogue
from torchrec_mm.simulation.market.pictures import draw_pictures, encode_jpeg

CHUNK = 256  # pictures drawn at once; each chunk has its own seed
ITEM_STREAM, QUERY_STREAM = 10, 11


class Studio:
    """Makes item pictures and query photos; a context manager that owns the processes."""

    def __init__(
        self, catalogue: Catalogue, *, image_size: int, seed: int, processes: int, tick: Callable
    ) -> None:
        """``processes``: 1 works in this process. ``tick(n)`` is called when n are done."""
        self.catalogue, self.image_size, self.seed, self.tick = catalogue, image_size, seed, tick
        self.pool = None
        if processes > 1:
            # spawn: forking a process that holds Arrow's threads can deadlock
            self.pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def item_pictures(self, rows: np.ndarray, part: int) -> list[bytes | None]:
        """The shop's picture of each item row (S,), None where it is missing.

        ``part`` numbers the calls: nuisance differs from part to part.
        """
        if self.catalogue.pictures is not None:
            self.tick(len(rows))
            return [self.catalogue.pictures[row] for row in rows.tolist()]
        return self._make(rows, self.catalogue.has_picture[rows], [self.seed, ITEM_STREAM, part])

    def query_photos(self, rows: np.ndarray, wanted: np.ndarray, part: int) -> list[bytes | None]:
        """A new photo of each item row (S,) where ``wanted`` (S,) bool, None elsewhere."""
        return self._make(rows, wanted, [self.seed, QUERY_STREAM, part])

    def _make(self, rows: np.ndarray, wanted: np.ndarray, seed: list[int]) -> list[bytes | None]:
        made = self._chunks(rows[wanted], seed)
        self.tick(int((~wanted).sum()))
        return [next(made) if want else None for want in wanted]

    def _chunks(self, rows: np.ndarray, seed: list[int]) -> Iterator[bytes]:
        chunks = [rows[begin : begin + CHUNK] for begin in range(0, len(rows), CHUNK)]
        seeds = [[*seed, number] for number in range(len(chunks))]
        sizes = [self.image_size] * len(chunks)
        run = map if self.pool is None else self.pool.map
        if self.catalogue.pictures is None:
            attributes = [self.catalogue.attributes[chunk] for chunk in chunks]
            made = run(draw_pictures, attributes, sizes, seeds)
        else:
            photos = [[self.catalogue.pictures[row] for row in chunk] for chunk in chunks]
            made = run(snapshots, photos, sizes, seeds)
        for pictures in made:
            self.tick(len(pictures))
            yield from pictures


def snapshots(pictures: list[bytes], image_size: int, seed: list[int]) -> list[bytes]:
    """Photos, ``image_size`` pixels a side, of pictures, seeded; InputError for what is none."""
    rng = np.random.default_rng(seed)
    return [snapshot(picture, image_size, rng) for picture in pictures]


def snapshot(picture: bytes, image_size: int, rng: np.random.Generator) -> bytes:
    """Turn, crop, mirror, recolour and blur one encoded picture."""
    from torchrec_mm.data.content.images import decode_image  # a heavy door: it imports torch

    pixels = decode_image(picture, image_size * 5 // 4, "items column image")
    fill = tuple(rng.integers(256, size=3).tolist())
    image = Image.fromarray(pixels)
    image = image.rotate(rng.uniform(-20, 20), Image.Resampling.BILINEAR, fillcolor=fill)
    side = rng.uniform(0.7, 1.0) * image.width
    left, top = rng.uniform(0, image.width - side, size=2)
    box = (left, top, left + side, top + side)
    image = image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.3))
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    return encode_jpeg(np.asarray(image))
