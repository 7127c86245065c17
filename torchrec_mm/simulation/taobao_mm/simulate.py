"""Made-up data with the tables, names and types of TAOBAO-MM, of any size."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from torchrec_mm.columns.jagged import list_array
from torchrec_mm.data.encode.taobao_mm_files import (
    CATEGORY,
    ITEM,
    ITEM_COLUMNS,
    LABEL,
    PAST_CATEGORIES,
    PAST_ITEMS,
    PROFILE,
    SAMPLE_COLUMNS,
    USER,
    USER_COLUMNS,
    VECTOR,
    VECTORS,
)
from torchrec_mm.simulation.market.clicks import sigmoid
from torchrec_mm.simulation.taobao_mm.shop import Shop, hash_ids, make_shop
from torchrec_mm.simulation.taobao_mm.users import Users, draw_impressions, draw_users, intercept

BLOCK_USERS = 1000
TEST_EVERY = 4  # one in so many users is in the test split as well


class Tables:
    """The writers of the samples and user features of one split."""

    def __init__(self, folder: Path, split: str) -> None:
        self._samples = _writer(folder / f"{split}_samples.parquet", SAMPLE_COLUMNS)
        self._users = _writer(folder / f"{split}_user_features.parquet", USER_COLUMNS)

    def write(
        self, shop: Shop, users: Users, past: np.ndarray, items: np.ndarray, clicks: np.ndarray
    ) -> None:
        """Append a block of users, their histories ``past`` and (n, C) candidates and clicks."""
        ids = hash_ids(users.numbers, 5)
        count = items.size
        one_hot = np.stack([~clicks, clicks], axis=-1).astype(np.int8)
        columns = {
            LABEL: list_array(one_hot.reshape(-1), np.full(count, 2)),
            USER: np.repeat(ids, items.shape[1]),
            ITEM: shop.ids[items.reshape(-1)],
        }
        self._samples.write_table(pa.table(columns, self._samples.schema), row_group_size=count)
        features = {USER: ids}
        for kind, (name, value) in enumerate(zip(PROFILE, users.profile.T, strict=True), 6):
            features[name] = np.where(value == 0, 0, hash_ids(value, kind))
        features[PAST_ITEMS] = list_array(shop.ids[past], users.lengths)
        categories = shop.category_ids[shop.category[past]]
        features[PAST_CATEGORIES] = list_array(categories, users.lengths)
        self._users.write_table(pa.table(features, self._users.schema), row_group_size=len(ids))

    def close(self) -> None:
        self._samples.close()
        self._users.close()


def make_tables(
    folder: Path, *, users: int, items: int, behaviours: int, candidates: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write the six tables into ``folder``, which exists; the same for the same arguments.

    Memory: the shop, about 200 bytes an item, and 13 bytes a test impression.

    Returns:
        Of the test impressions (I,) int64 user, bool click and float32 true logit.
    """
    shop = make_shop(items=items, seed=seed)
    _write_shop(folder, shop)
    constant = intercept(shop, seed)
    train, test = Tables(folder, "train"), Tables(folder, "test")
    shown = []
    with tqdm(total=users, desc="users", unit="user", disable=None) as bar:
        for block, first in enumerate(range(0, users, BLOCK_USERS)):
            rng = np.random.default_rng([seed, 2, block])
            drawn = draw_users(shop, first, min(BLOCK_USERS, users - first), behaviours, rng)
            _write_split(train, shop, drawn, False, candidates, constant, rng)
            later = _some(drawn, slice(None, None, TEST_EVERY))
            shown.append(_write_split(test, shop, later, True, candidates, constant, rng))
            bar.update(len(drawn.numbers))
    train.close()
    test.close()
    user, click, logit = (np.concatenate(part) for part in zip(*shown, strict=True))
    return user, click, logit


def _write_split(
    tables: Tables,
    shop: Shop,
    users: Users,
    test: bool,
    candidates: int,
    constant: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    items, logits = draw_impressions(shop, users, candidates, rng)
    clicks = rng.random(items.shape) < sigmoid(logits + constant)
    tables.write(shop, users, users.snapshot(test), items, clicks)
    return np.repeat(users.numbers, candidates), clicks.reshape(-1), logits.reshape(-1)


def _some(users: Users, rows: slice) -> Users:
    return Users(**{name: values[rows] for name, values in vars(users).items()})


def _write_shop(folder: Path, shop: Shop) -> None:
    shown = np.flatnonzero(shop.is_candidate)
    columns = {
        ITEM: shop.ids[shown],
        CATEGORY: shop.category_ids[shop.category[shown]],
        "213": shop.attribute_213[shown],
        "214": shop.attribute_214[shown],
    }
    with _writer(folder / "item_features.parquet", ITEM_COLUMNS) as writer:
        writer.write_table(pa.table(columns, writer.schema))
    schema = {ITEM: pa.int64(), VECTOR: pa.list_(pa.int8())}
    with _writer(folder / f"{VECTORS}.parquet", schema) as writer:
        for rows in _blocks(np.flatnonzero(shop.has_vector)):
            values = shop.vectors[rows]
            lengths = np.full(len(rows), values.shape[1])
            columns = {ITEM: shop.ids[rows], VECTOR: list_array(values.reshape(-1), lengths)}
            writer.write_table(pa.table(columns, writer.schema))


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, -(-len(rows) // 50_000))


def _writer(path: Path, columns: dict[str, pa.DataType]) -> pq.ParquetWriter:
    # Hashes hardly compress, and a dictionary of them would be dropped half-way.
    return pq.ParquetWriter(
        path, pa.schema(list(columns.items())), compression="snappy", use_dictionary=False
    )
