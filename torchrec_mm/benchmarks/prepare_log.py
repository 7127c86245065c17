"""Event logs for timing ``apps.prepare``, and a slow second reading of its rules.

The log is simulated, of any size, drawn by DuckDB: nothing is to be learned from it. The reading
makes the requests of one user in plain Python.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from torchrec_mm.data.prepare.events import EventRules

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


def slow_requests(
    user: int, events: Iterable[tuple[int, int, str]], rules: EventRules
) -> list[dict[str, Any]]:
    """What ``requests_of`` must make of one user, as rows of ``rules.request_schema``.

    ``events``: (timestamp, item_id, event) in any order, with other kinds and repetitions.
    """
    events = set(events)
    shown = sorted((time, item) for time, item, kind in events if kind in rules.shown)
    clicked = sorted((time, item) for time, item, kind in events if kind in rules.clicked)
    of_kinds = {
        name: sorted((time, item) for time, item, kind in events if kind in kinds)
        for name, kinds in rules.further.items()
    }
    in_training = math.ceil(len(shown) * (1 - rules.test_share) - 1e-9)
    labels = _labels(shown, clicked, rules.attribution_s)
    if rules.passed:
        unclicked = (seen for seen, label in zip(shown, labels, strict=True) if not label)
        of_kinds["passed"] = [(time + rules.attribution_s, item) for time, item in unclicked]
    requests: list[dict[str, Any]] = []
    before = None
    for (time, item), label in zip(shown, labels, strict=True):
        is_test = time > shown[max(in_training, 1) - 1][0]
        if (
            before is None
            or time - before > rules.pause_s
            or is_test != requests[-1]["is_test"]
            or len(requests[-1]["labels"]) == rules.max_candidates
        ):
            past = [item for click, item in clicked if click < time]
            requests.append(
                {
                    "user_id": user,
                    "timestamp": time,
                    "behaviour_item_ids": past[-rules.behaviours :],
                    "candidate_item_ids": [],
                    "labels": [],
                    "is_test": is_test,
                }
            )
            for name, of_kind in of_kinds.items():
                earlier = [item for when, item in of_kind if when < time]
                requests[-1][f"{name}_item_ids"] = earlier[-rules.behaviours :]
        requests[-1]["candidate_item_ids"].append(item)
        requests[-1]["labels"].append(label)
        before = time
    return requests


def _labels(
    shown: list[tuple[int, int]], clicked: list[tuple[int, int]], attribution_s: int
) -> list[int]:
    """1 where a click came at or after an impression, in time, and before the next one."""
    clicks = defaultdict(list)
    for time, item in clicked:
        clicks[item].append(time)
    shown_next: dict[int, int] = {}
    labels = []
    for time, item in reversed(shown):
        click = next((click for click in clicks[item] if click >= time), math.inf)
        again = shown_next.get(item, math.inf)
        labels.append(int(click - time <= attribution_s and click < again))
        shown_next[item] = time
    return labels[::-1]
