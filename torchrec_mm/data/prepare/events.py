"""Raw event logs as requests: what was shown, what was clicked soon after.

``requests_of`` is the one definition of it; the engines (events_duckdb, events_spark) only read
the log and bring the events of each user together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.jagged import list_array, ragged_positions
from torchrec_mm.columns.parquet import INT8, INT8_LIST, INT64, INT64_LIST
from torchrec_mm.data.contract.request_columns import LISTS, OF_CANDIDATES, column_of
from torchrec_mm.data.prepare.behaviours import PASSED, behaviour_ranges, count_before
from torchrec_mm.data.prepare.sittings import changes, cut_sittings, latest_rows, request_table
from torchrec_mm.errors import InputError

# Events of one user at one second are in the order of their item ids: files of a log have no order.
SORTED_BY = ("user_id", "timestamp", "item_id", "kind")
EVENT_SCHEMA = pa.schema(dict.fromkeys(SORTED_BY[:3], INT64) | {"kind": INT8})
IMPRESSION, CLICK = range(2)  # kinds; those of further events follow
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

    shown, clicked: values of the column ``event`` for impressions and for clicks. further: those of
    the events of further behaviour sequences, by event. Others are left out.
    passed: whether a request has what was shown, and not clicked, as such a sequence.
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
    further: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    passed: bool = False

    def __post_init__(self) -> None:
        taken: dict[str, str] = {}
        for name, kinds in self.groups.items():
            if not kinds:
                raise InputError(f"events must name a kind of events for {name}, got none")
            for kind in kinds:
                if taken.setdefault(kind, name) != name:
                    rule = f"events must not take one kind for both {taken[kind]} and {name}"
                    raise InputError(f"{rule}, got {kind}")
        given = (*LISTS, *[PASSED] * self.passed)
        for event in self.further:
            if not event or column_of(event) in given or event.startswith(OF_CANDIDATES):
                columns = ", ".join(given)
                rule = f"events must not be called like {columns} or {OF_CANDIDATES}..."
                raise InputError(f"{rule}, got {event}: it would be {column_of(event)}")

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Values of the column ``event`` by what they mean, in the order of kinds' numbers."""
        return {"impression": self.shown, "click": self.clicked, **self.further}

    @property
    def kinds(self) -> dict[str, int]:
        """Number of the kind that each value of the column ``event`` is of."""
        of_groups = enumerate(self.groups.values())
        return {event: number for number, events in of_groups for event in events}

    @property
    def sequences(self) -> list[str]:
        """Columns of further behaviour sequences, in their order."""
        return [*map(column_of, self.further), *[PASSED] * self.passed]

    @property
    def request_schema(self) -> pa.Schema:
        """REQUEST_SCHEMA, and the further sequences."""
        further = [pa.field(name, INT64_LIST) for name in self.sequences]
        return pa.schema([*REQUEST_SCHEMA, *further])


def requests_of(events: pa.Table, rules: EventRules) -> Iterator[pa.Table]:
    """The requests of some users, by user and time.

    An event that the log holds several times counts once: same user, second, item and kind. An
    impression's label is 1 if its user clicked its item at or after it, within
    ``attribution_s`` and before the user was shown the item again. Behaviours are the user's latest
    clicks strictly before the request; of two at one second, the one of the greater item id is the
    later. Candidates of a request are in the order of time, then item id. Further sequences hold
    what behaviours hold of their own events. An impression is passed over ``attribution_s`` seconds
    after it, if it has no click: earlier, nobody knew.

    Args:
        events: N rows of EVENT_SCHEMA without nulls, all events of each user, sorted by SORTED_BY.
        rules: what a click, a request and the test split are.

    Yields:
        Rows of ``rules.request_schema``; an impression is a candidate once.
    """
    shown, clicked, *further = _split(events, len(rules.groups))
    if len(shown[0]) == 0:
        return
    user, item, time = shown
    label = attribute_clicks(shown, clicked, rules.attribution_s)
    is_test = latest_rows(user, time, rules.test_share)
    limits = {"pause_s": rules.pause_s, "max_candidates": rules.max_candidates}
    begins = cut_sittings(user, time, is_test, **limits)
    if rules.passed:
        further.append((user[~label], item[~label], time[~label] + rules.attribution_s))
    first = np.flatnonzero(begins)
    past = [
        (items, *behaviour_ranges(who, when, user[first], time[first], rules.behaviours))
        for who, items, when in (clicked, *further)
    ]
    ends = np.append(first, len(user))
    step = max(VALUES_A_TABLE // (rules.behaviours * len(past)), 1)
    for at in range(0, len(first), step):
        requests = slice(at, at + step)
        rows = slice(first[at], ends[min(at + step, len(first))])
        behaviours, *lists = (
            list_array(
                items[ragged_positions(oldest[requests], lengths[requests])], lengths[requests]
            )
            for items, oldest, lengths in past
        )
        table = request_table(
            begins[rows],
            user[rows],
            time[rows],
            item[rows],
            label[rows],
            behaviours,
            features={"is_test": is_test[rows]},
        )
        for name, items in zip(rules.sequences, lists, strict=True):
            table = table.append_column(name, items)
        yield table.cast(rules.request_schema)


def _split(events: pa.Table, kinds: int) -> list[tuple[np.ndarray, ...]]:
    """user, item, time of the events of each of so many kinds, each once, order kept."""
    kind = events["kind"].to_numpy()
    columns = [events[name].to_numpy() for name in ("user_id", "item_id", "timestamp")]
    first = np.logical_or.reduce([changes(values) for values in (*columns, kind)])
    chosen = [first & (kind == number) for number in range(kinds)]
    return [tuple(column[rows] for column in columns) for rows in chosen]


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
