"""Amazon Reviews 2023: what users rated and bought, and what the items are.

Hou et al., arXiv 2403.03952; format: https://amazon-reviews-2023.github.io. JSON lines, packed with
gzip or not: ``<category>.jsonl.gz`` of reviews (user_id, parent_asin, rating, timestamp in
milliseconds, verified_purchase and more) and ``meta_<category>.jsonl.gz`` (parent_asin, title,
main_category, store, price, categories and more). ``pictures/<parent_asin>.jpg``: pictures, where
there are any; the data set itself holds their addresses alone.

An item is a parent_asin. A label is 1 where the rating is at least ``like_from``. A request is a
sitting: a user's reviews with no longer pause than ``pause_s``; of several reviews of one item by a
user the first counts. Behaviours are earlier likes, ``purchase_item_ids`` items that were bought
for sure (verified_purchase), liked or not. A price that is no number is null. average_rating and
rating_number are not read: they count what came later.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from torchrec_mm.columns.parquet import BINARY
from torchrec_mm.columns.text_ids import hash_texts
from torchrec_mm.data.public.public_data import PublicData, picture
from torchrec_mm.data.public.tables import Tables, find, hashed, json_rows
from torchrec_mm.data.public.users import IN, FeedRules, requests_of_users
from torchrec_mm.errors import InputError

REVIEW = {"user_id": "VARCHAR", "parent_asin": "VARCHAR", "rating": "DOUBLE"}
REVIEW |= {"timestamp": "BIGINT", "verified_purchase": "BOOLEAN"}
META = dict.fromkeys(("parent_asin", "title", "main_category", "store", "price"), "VARCHAR")
META |= {"categories": "VARCHAR[]"}
ITEMS_A_PIECE = 500  # with a picture each
PICTURES = "pictures"
BOUGHT = f"{IN}purchase"  # rows of the sequence purchase_item_ids


def read_amazon(folder: Path, tables: Tables, rules: FeedRules, *, like_from: float) -> PublicData:
    """``tables``: to join and sort with.

    Raises:
        InputError: a missing file, lines that are no JSON or hold another type, a review without
            user, item, rating or time.
    """
    files = find(folder, "*.jsonl.gz", "*.jsonl")
    of_meta = [file for file in files if file.name.startswith("meta_")]
    of_reviews = [file for file in files if file not in of_meta]
    for what, some in (("meta_*.jsonl", of_meta), ("*.jsonl of reviews", of_reviews)):
        if not some:
            raise InputError(f"{folder} must hold {what}, found none")
    reviews, meta = json_rows(of_reviews, REVIEW), json_rows(of_meta, META)
    _check_whole(folder, tables, reviews)
    first = (
        f'SELECT user_id, parent_asin, min("timestamp") AS time, '
        f'arg_min(rating, "timestamp") AS rating, '
        f'coalesce(arg_min(verified_purchase, "timestamp"), false) AS {BOUGHT} '
        f"FROM {reviews} GROUP BY user_id, parent_asin"
    )
    rows = (
        f'SELECT {hashed("user_id")} AS user_id, time // 1000 AS "timestamp", '
        f"{hashed('parent_asin')} AS item_id, CAST(rating >= {like_from} AS TINYINT) AS label, "
        f"{BOUGHT} "
        f"FROM ({first}) ORDER BY ALL"
    )
    items = (
        "SELECT parent_asin, any_value(title) AS title, any_value(main_category) AS category, "
        "any_value(store) AS store, any_value(TRY_CAST(price AS DOUBLE)) AS price, "
        "any_value(categories) AS categories "
        f"FROM {meta} FULL JOIN (SELECT DISTINCT parent_asin FROM {reviews}) USING (parent_asin) "
        "GROUP BY parent_asin"
    )
    return PublicData(
        _items(tables(items), folder / PICTURES),
        requests_of_users(tables(rows), rules),
        no_click=f"no rating in {folder} is at least like_from = {like_from}",
        texts={
            "user_id": tables(_texts("user_id", reviews)),
            "item_id": tables(_texts("parent_asin", f"({items})")),
        },
        settings={"price": {"transform": "log1p"}},
    )


def _texts(column: str, rows: str) -> str:
    """SQL: rows of MAP_SCHEMA."""
    return f"SELECT DISTINCT {hashed(column)} AS id, {column} AS text FROM {rows}"


def _check_whole(folder: Path, tables: Tables, reviews: str) -> None:
    needed = ("user_id", "parent_asin", "rating", "timestamp")
    query = ", ".join(f'count(*) - count("{name}") AS "{name}"' for name in needed)
    for batch in tables(f"SELECT {query} FROM {reviews}"):
        for name in needed:
            if missing := batch[name][0].as_py():
                raise InputError(f"{folder} must give {name} in every review, {missing} lack it")


def _items(batches: Iterator[pa.RecordBatch], pictures: Path) -> Iterator[pa.Table]:
    has_pictures = pictures.is_dir()
    for batch in batches:
        for at in range(0, batch.num_rows, ITEMS_A_PIECE if has_pictures else batch.num_rows):
            table = pa.Table.from_batches(
                [batch.slice(at, ITEMS_A_PIECE) if has_pictures else batch]
            )
            asins = table["parent_asin"]
            table = table.set_column(0, "item_id", hash_texts(asins))
            if has_pictures:
                images = [picture(pictures / f"{asin}.jpg") for asin in asins.to_pylist()]
                table = table.append_column("image", pa.array(images, BINARY))
            yield table
