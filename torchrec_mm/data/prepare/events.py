"""Raw event logs as requests: what was shown, what was clicked soon after.

``requests_of`` is the one definition of it; the engines (events_duckdb, events_spark) only read
the log and bring the events of each user together.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import list_array, ragged_positions
from torchrec_mm.columns.parquet import INT8_LIST, INT64, INT64_LIST
from torchrec_mm.data.prepare.behaviours import behaviour_ranges, count_before
from torchrec_mm.data.prepare.sittings import changes, cut_sittings, latest_rows, request_table
from torchrec_mm.errors import InputError

# Events of one user at one second are in the order of their item ids: files of a log have no order.
SORTED_BY = ("user_id", "timestamp", "item_id", "is_click")
EVENT_SCHEMA = pa.schema(dict.fromkeys(SORTED_BY[:3], INT64) | {"is_click": pa.bool_()})
REQUEST_SCHEMA = pa.schema(
    {
        "user_id": INT64,
        "timestamp": INT64,
        "behaviour_item_ids": INT64_LIST,
        "candidate_item_ids": INT64_LIST,
        "labels": INT8_LIST,
        "is_test": pa.bool_(),
    }
)
VALUES_A_TABLE = 4_000_000  # behaviours in a table at most, so that a long user fits in memory


@dataclass(frozen=True, kw_only=True)
class EventRules:
    """How events become requests.

    shown, clicked: values of the column ``event`` for impressions and for clicks; other events are
    left out.
    attribution_s: seconds after an impression within which a click counts as its click.
    pause_s: seconds between impressions that end a request; 0 keeps one timestamp together.
    max_candidates, behaviours: per request at most. test_share: of each user's impressions.
    """

    shown: tuple[str, ...]
    clicked: tuple[str, ...]
    attribution_s: int
    pause_s: int
    max_candidates: int
    behaviours: int
    test_share: float

    def __post_init__(self) -> None:
        for name, kinds in (("impression", self.shown), ("click", self.clicked)):
            if not kinds:
                raise InputError(f"events must name a kind of events for {name}, got none")
        both = [kind for kind in self.shown if kind in self.clicked]
        if both:
            rule = "events must not take one kind for both impression and click"
            raise InputError(f"{rule}, got {both[0]}")


def requests_of(events: pa.Table, rules: EventRules) -> Iterator[pa.Table]:
    """The requests of some users, by user and time.

    An event that the log holds several times counts once: same user, second, item and kind. An
    impression's label is 1 if its user clicked its item at or after it, within
    ``attribution_s`` and before the user was shown the item again. Behaviours are the user's latest
    clicks strictly before the request; of two at one second, the one of the greater item id is the
    later. Candidates of a request are in the order of time, then item id.

    Args:
        events: N rows of EVENT_SCHEMA without nulls, all events of each user, sorted by SORTED_BY.
        rules: what a click, a request and the test split are.

    Yields:
        Rows of REQUEST_SCHEMA; an impression is a candidate once.
    """
    shown, clicked = _split(events)
    if len(shown[0]) == 0:
        return
    user, item, time = shown
    label = attribute_clicks(shown, clicked, rules.attribution_s)
    is_test = latest_rows(user, time, rules.test_share)
    limits = {"pause_s": rules.pause_s, "max_candidates": rules.max_candidates}
    begins = cut_sittings(user, time, is_test, **limits)
    first, clicks = np.flatnonzero(begins), (clicked[0], clicked[2])
    oldest, lengths = behaviour_ranges(*clicks, user[first], time[first], rules.behaviours)
    ends = np.append(first, len(user))
    step = max(VALUES_A_TABLE // rules.behaviours, 1)
    for at in range(0, len(first), step):
        requests = slice(at, at + step)
        rows = slice(first[at], ends[min(at + step, len(first))])
        past = clicked[1][ragged_positions(oldest[requests], lengths[requests])]
        table = request_table(
            begins[rows],
            user[rows],
            time[rows],
            item[rows],
            label[rows],
            list_array(past, lengths[requests]),
            features={"is_test": is_test[rows]},
        )
        yield table.cast(REQUEST_SCHEMA)


def _split(events: pa.Table) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """user, item, time of the impressions and of the clicks, each once, order kept."""
    is_click = events["is_click"].to_numpy()
    columns = [events[name].to_numpy() for name in ("user_id", "item_id", "timestamp")]
    first = np.logical_or.reduce([changes(values) for values in (*columns, is_click)])
    shown, clicked = first & ~is_click, first & is_click
    return tuple(c[shown] for c in columns), tuple(c[clicked] for c in columns)


def attribute_clicks(
    shown: tuple[np.ndarray, ...], clicked: tuple[np.ndarray, ...], attribution_s: int
) -> np.ndarray:
    """Which impressions were clicked: (N,) bool.

    Args:
        shown: user, item, time of N impressions, each (N,) int64, sorted by user and time.
        clicked: user, item, time of C clicks, each (C,) int64.
        attribution_s: seconds, not negative.
    """
    if len(clicked[0]) == 0:
        return np.zeros(len(shown[0]), dtype=bool)
    shown_pair, clicked_pair = _pair_numbers(shown, clicked)
    order = np.lexsort((clicked[2], clicked_pair))
    next_click = count_before(clicked_pair, clicked[2], shown_pair, shown[2])
    at = order[np.minimum(next_click, len(order) - 1)]
    click_time = clicked[2][at]
    same_pair = (next_click < len(order)) & (clicked_pair[at] == shown_pair)
    in_time = same_pair & (click_time - shown[2] <= attribution_s)
    return in_time & ~_shown_again_by(click_time, shown_pair, shown[2])


def _pair_numbers(
    shown: tuple[np.ndarray, ...], clicked: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """One number for each distinct (user, item): (N,) of the impressions, (C,) of the clicks."""
    codes = [
        np.unique(np.concatenate([ours, theirs]), return_inverse=True)[1]
        for ours, theirs in zip(shown[:2], clicked[:2], strict=True)
    ]
    pairs = codes[0] * (codes[1].max() + 1) + codes[1]
    return pairs[: len(shown[0])], pairs[len(shown[0]) :]


def _shown_again_by(moment: np.ndarray, pair: np.ndarray, time: np.ndarray) -> np.ndarray:
    """(N,): a later impression of the pair came by ``moment``; ``time`` ascends within a pair."""
    order = np.argsort(pair, kind="stable")
    same = pair[order][1:] == pair[order][:-1]
    earlier, later = order[:-1][same], order[1:][same]
    again = np.zeros(len(pair), dtype=bool)
    again[earlier] = time[later] <= moment[earlier]
    return again
