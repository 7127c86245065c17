"""What the simulated market sells, drawn or real: hidden attributes, quality, popularity, age."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.numbers import in_one
from torchrec_mm.data.content.content_columns import as_sources, picture_bytes, text_strings
from torchrec_mm.data.contract.items import CONTENTS, ITEM_ID, attribute_columns, open_items
from torchrec_mm.errors import InputError
from torchrec_mm.ids import sort_unique
from torchrec_mm.simulation.market.words import NUM_VALUES, product_titles

DAY_S = 86_400
START = 1_704_067_200  # 2024-01-01 00:00 UTC, the first simulated day
BORN_SHARE = 0.20  # of the items, born while requests are simulated
MISSING_SHARE = 0.03  # of the items lack the title, and as many others the picture
NUM_BRANDS = 40
SHAPES_PER_CATEGORY = 2


@dataclass(frozen=True)
class Catalogue:
    """All items in order of birth, so that "what exists at time t" is a prefix; N items.

    item_ids: (N,) int64 unique. created_at: (N,) int64 seconds, ascending.
    attributes: (N, A) int64, the hidden attributes, value v of attribute a in [0, num_values[a]).
    columns: attribute columns the ranker is given, each (N,) int64.
    titles: N strings, None where the title is missing.
    pictures: N encoded pictures, None where missing; None as a whole when they are to be drawn.
    has_picture: (N,) bool.
    """

    item_ids: np.ndarray
    created_at: np.ndarray
    attributes: np.ndarray
    columns: Mapping[str, np.ndarray]
    titles: list[str | None]
    pictures: list[bytes | None] | None
    has_picture: np.ndarray

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def num_values(self) -> np.ndarray:
        """(A,) values per attribute."""
        return self.attributes.max(axis=0) + 1


def draw_catalogue(*, num_items: int, days: int, seed: int) -> Catalogue:
    """Invent ``num_items`` items: attributes, brand, title, date of birth, what is missing.

    The ranker is given ``category`` (coarse: two shapes share one) and ``brand``; colour, pattern,
    material and trim show only in the picture and the title.
    """
    rng = np.random.default_rng([seed, 0])
    attributes = np.stack(
        [rng.choice(n, size=num_items, p=_uneven_shares(n, rng)) for n in NUM_VALUES], axis=1
    )
    brand = rng.integers(NUM_BRANDS, size=num_items)
    missing = rng.permutation(num_items)
    num_missing = round(num_items * MISSING_SHARE)
    titles: list[str | None] = list(product_titles(attributes, brand, rng))
    for row in missing[:num_missing]:
        titles[row] = None
    has_picture = np.ones(num_items, dtype=bool)
    has_picture[missing[num_missing : 2 * num_missing]] = False
    return Catalogue(
        item_ids=_scattered_ids(num_items, rng),
        created_at=births(num_items, days, rng),
        attributes=attributes,
        columns={"category": attributes[:, 0] // SHAPES_PER_CATEGORY, "brand": brand},
        titles=titles,
        pictures=None,
        has_picture=has_picture,
    )


def births(num_items: int, days: int, rng: np.random.Generator) -> np.ndarray:
    """Ascending seconds: most in the year before the warm-up, the rest while the market runs."""
    num_born = round(num_items * BORN_SHARE)
    old = START - rng.integers(40 * DAY_S, 365 * DAY_S, size=num_items - num_born)
    born = START + rng.integers(0, days * DAY_S, size=num_born)
    return np.sort(np.concatenate([old, born]))


def _uneven_shares(num_values: int, rng: np.random.Generator) -> np.ndarray:
    shares = rng.uniform(0.5, 1.5, size=num_values)
    return shares / shares.sum()


def _scattered_ids(num: int, rng: np.random.Generator) -> np.ndarray:
    """Ids as real systems have them: unordered, of either sign, not a dense range."""
    ids = np.unique(rng.integers(-(10**12), 10**12, size=2 * num))
    return rng.permutation(ids)[:num]


def read_catalogue(data: Path, category_column: str, *, days: int, seed: int) -> Catalogue:
    """Read ``data/items/`` whole and give every item a simulated date of birth.

    Users' tastes are over all attributes; only ``category_column`` (empty: the first of them) is
    handed on as an attribute column, of its ids, so that the rest can be learned from looks and
    titles alone. Pictures and titles are kept as they are. An existing ``created_at`` is replaced:
    the market runs in simulated time.

    Raises:
        InputError: missing folder or column, duplicate item_id, unreadable image_path, an item
            with neither title nor picture.
    """
    folder = data / "items"
    items = open_items(folder)
    attributes = attribute_columns(items)
    names = list(attributes)
    if not names:
        raise InputError(f"{folder} must have an attribute column, got none")
    category = category_column or names[0]
    if category not in names:
        rule = f"category_column must be one of {', '.join(names)}"
        raise InputError(f"{rule}, got {category_column}")
    types = {name: column.kind for name, column in attributes.items()}
    table = items.read(ITEM_ID, CONTENTS | types)
    rng = np.random.default_rng([seed, 0])
    table = table.take(sort_unique(table["item_id"].to_numpy(), f"{folder} column item_id"))
    table = table.take(rng.permutation(table.num_rows))
    pictures, titles = _pictures(table, folder), text_strings(table, "title").to_pylist()
    _check_content(table, pictures, titles, folder)
    ids = {
        name: column.ids(in_one(table[name]), f"{folder} column {name}")
        for name, column in attributes.items()
    }
    return Catalogue(
        item_ids=table["item_id"].to_numpy(),
        created_at=births(table.num_rows, days, rng),
        attributes=np.stack(
            [np.unique(of_column, return_inverse=True)[1] for of_column in ids.values()], axis=1
        ),
        columns={category: ids[category]},
        titles=titles,
        pictures=pictures,
        has_picture=np.array([picture is not None for picture in pictures]),
    )


def _check_content(
    table: pa.Table, pictures: list[bytes | None], titles: list[str | None], folder: Path
) -> None:
    for item_id, picture, title in zip(table["item_id"].to_pylist(), pictures, titles, strict=True):
        if picture is None and title is None:
            rule = f"{folder} columns title and image must not both be null"
            raise InputError(f"{rule}, got item_id {item_id}")


def _pictures(table: pa.Table, folder: Path) -> list[bytes | None]:
    images, is_path = picture_bytes(table, "image", folder)
    sources = as_sources(images.to_pylist(), is_path)
    return [_read(source) if isinstance(source, Path) else source for source in sources]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"items column image_path must name readable files: {error}") from error
