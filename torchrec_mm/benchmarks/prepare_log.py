"""A simulated event log of any size, drawn by DuckDB: nothing to be learned from it."""

from pathlib import Path

import duckdb

ROWS_A_FILE = 10_000_000
EVENTS_A_USER = 50
ITEMS = 1_000_000
SECONDS = 30 * 24 * 3600

# Ten events are a page: eight impressions of a user at a second, a click on one of them up to two
# minutes later, and an event of another kind. A user's share falls with the root of its number,
# an item's with its number (Zipf). hash(n) is DuckDB's, the same in every run.
_PAGE = f"""
SELECT
    CAST(floor($users * pow((hash(row // 10) % 1000003) / 1000003, 2)) AS BIGINT) AS user_id,
    CAST(floor(pow({ITEMS}, (hash(source + 7) % 1000003) / 1000003)) AS BIGINT) AS item_id,
    1700000000 + CAST(hash(row // 10 + 11) % {SECONDS} AS BIGINT)
        + CASE WHEN row % 10 = 8 THEN CAST(hash(row + 3) % 120 AS BIGINT) ELSE 0 END AS timestamp,
    CASE WHEN row % 10 < 8 THEN 'impression' WHEN row % 10 = 8 THEN 'click' ELSE 'basket' END
        AS event
FROM (
    SELECT
        row,
        CASE WHEN row % 10 < 8 THEN row ELSE row - row % 10 + CAST(hash(row) % 8 AS BIGINT) END
            AS source
    FROM range($begin, $end) AS rows(row)
)
"""


def draw_log(folder: Path, events: int) -> None:
    """Write Parquet files of at most 10 million rows, users mixed, about 7 bytes an event.

    ``events``: impressions, clicks and others together; the same number gives the same log.
    """
    folder.mkdir(parents=True)
    with duckdb.connect(config={"memory_limit": "1GB"}) as database:
        for number, begin in enumerate(range(0, events, ROWS_A_FILE)):
            rows = database.sql(
                _PAGE,
                params={
                    "users": max(events // EVENTS_A_USER, 1),
                    "begin": begin,
                    "end": min(begin + ROWS_A_FILE, events),
                },
            )
            rows.write_parquet(str(folder / f"part-{number:04d}.parquet"))
