"""The simulated market as the folders of the data contract."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import list_array
from torchrec_mm.columns.parquet import BINARY, STRING, write_table
from torchrec_mm.data.prepare.behaviours import PASSED, behaviours_before
from torchrec_mm.simulation.market.catalogue import DAY_S, START
from torchrec_mm.simulation.market.extras import NUM_TAGS, Extras
from torchrec_mm.simulation.market.market import Market
from torchrec_mm.simulation.market.requests import Requests
from torchrec_mm.simulation.market.studio import Studio

PART_ROWS = 10_000  # rows with pictures a file, and so in memory at once


def write(
    folder: Path, market: Market, behaviours: int, studio: Studio, passed: bool = False
) -> None:
    """Write ``requests/``, ``items/`` and ``searches/`` under ``folder``.

    ``behaviours``: the newest clicks of a user that a request keeps. ``passed``: whether it keeps
    as many items that the user was shown earlier and did not click.
    """
    _write_requests(folder / "requests", market, behaviours, passed)
    _write_items(folder / "items", market, studio)
    _write_searches(folder / "searches", market, studio)


def _write_items(folder: Path, market: Market, studio: Studio) -> None:
    """Write ``items/``: id, title, picture, date of birth, the columns the ranker is given."""
    catalogue = market.catalogue
    for part, rows in enumerate(_parts(len(catalogue))):
        table = pa.table(
            {
                "item_id": catalogue.item_ids[rows],
                "title": pa.array([catalogue.titles[row] for row in rows.tolist()], STRING),
                "image": pa.array(studio.item_pictures(rows, part), BINARY),
                "created_at": catalogue.created_at[rows],
                **{name: column[rows] for name, column in catalogue.columns.items()},
                **(_of_items(market.extras, rows) if market.extras else {}),
            }
        )
        write_table(folder / f"part-{part:04d}.parquet", table, row_group_rows=1000)


def _write_searches(folder: Path, market: Market, studio: Studio) -> None:
    """Write ``searches/`` in order of time."""
    searches, item_ids = market.searches, market.catalogue.item_ids
    ends = np.cumsum(searches.num_clicked)
    for part, rows in enumerate(_parts(len(searches.user))):
        purchased = searches.purchased[rows]
        clicked = slice(ends[rows[0]] - searches.num_clicked[rows[0]], ends[rows[-1]])
        photos = studio.query_photos(purchased, searches.has_photo[rows], part)
        table = pa.table(
            {
                "search_id": rows,
                "user_id": market.user_ids[searches.user[rows]],
                "timestamp": searches.timestamp[rows],
                "query_text": pa.array([searches.texts[row] for row in rows.tolist()], STRING),
                "query_image": pa.array(photos, BINARY),
                "purchased_item_id": item_ids[purchased],
                "clicked_item_ids": list_array(
                    item_ids[searches.clicked[clicked]], searches.num_clicked[rows]
                ),
            }
        )
        write_table(folder / f"part-{part:04d}.parquet", table, row_group_rows=1000)


def _write_requests(folder: Path, market: Market, behaviours: int, passed: bool) -> None:
    """Write ``requests/train`` and ``requests/test``, one file a simulated day."""
    requests, clicks, item_ids = market.requests, market.clicks, market.catalogue.item_ids
    table = pa.table(
        {
            "user_id": market.user_ids[requests.user],
            "timestamp": requests.timestamp,
            "behaviour_item_ids": behaviours_before(
                clicks.user,
                clicks.time,
                item_ids[clicks.item],
                requests.user,
                requests.timestamp,
                behaviours,
            ),
            "candidate_item_ids": list_array(item_ids[requests.item], requests.lengths),
            "labels": list_array(requests.label, requests.lengths),
            "age_band": market.users.age_band[requests.user],
            "hour": requests.timestamp % DAY_S // 3600,
        }
    )
    if passed:
        other = requests.label == 0
        request = requests.request[other]
        earlier = behaviours_before(
            requests.user[request],
            requests.timestamp[request],
            item_ids[requests.item[other]],
            requests.user,
            requests.timestamp,
            behaviours,
        )
        table = table.append_column(PASSED, earlier)
    if market.extras is not None:
        for name, values in _of_requests(market.extras, requests).items():
            table = table.append_column(name, values)
    days = (requests.timestamp - START) // DAY_S
    for day in np.unique(days).tolist():
        begin, end = np.searchsorted(days, [day, day + 1])
        split = "train" if START + day * DAY_S < market.test_start else "test"
        write_table(folder / split / f"day-{day:03d}.parquet", table.slice(begin, end - begin))


def _of_items(extras: Extras, rows: np.ndarray) -> dict[str, pa.Array]:
    tags = extras.tags.take(rows)[0]
    names = pa.array([f"tag {number}" for number in range(NUM_TAGS)]).take(pa.array(tags.values))
    return {
        "price": pa.array(np.round(extras.price[rows], 2), mask=~extras.is_known[rows]),
        "tags": pa.ListArray.from_arrays(pa.array(tags.offsets.astype(np.int32)), names),
    }


def _of_requests(extras: Extras, requests: Requests) -> dict[str, pa.Array]:
    assert requests.discount is not None  # drawn where there are extras
    return {
        "budget": pa.array(np.round(extras.budget[requests.user], 2)),
        "candidate_position": list_array(requests.place, requests.lengths),
        "candidate_discount": list_array(np.round(requests.discount, 3), requests.lengths),
    }


def _parts(rows: int) -> list[np.ndarray]:
    return [np.arange(begin, min(begin + PART_ROWS, rows)) for begin in range(0, rows, PART_ROWS)]
