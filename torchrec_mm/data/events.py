"""Raw event logs as requests: what was shown, what was clicked soon after."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from torchrec_mm.data.behaviours import behaviours_before, count_before
from torchrec_mm.data.csv_files import read_csv
from torchrec_mm.data.parquet import INT64, STRING, check_columns, read_table
from torchrec_mm.data.prepared import Prepared, items_for
from torchrec_mm.data.sittings import cut_sittings, latest_rows, request_table
from torchrec_mm.errors import InputError

COLUMNS = {"user_id": INT64, "item_id": INT64, "timestamp": INT64, "event": STRING}


@dataclass(frozen=True)
class EventRules:
    """How events become requests.

    shown_event, clicked_event: values of the column ``event``; other events are left out.
    attribution_s: seconds after an impression within which a click counts as its click.
    pause_s: seconds between impressions that end a request; 0 keeps one timestamp together.
    max_candidates, behaviours: per request at most. test_share: of each user's impressions.
    """

    shown_event: str
    clicked_event: str
    attribution_s: int
    pause_s: int
    max_candidates: int
    behaviours: int
    test_share: float


def prepare_events(folder: Path, items: Path | None, rules: EventRules) -> Prepared:
    """Read a folder of Parquet or CSV logs with user_id, item_id, timestamp (s) and event.

    An impression's label is 1 if its user clicked its item at or after it, within
    ``attribution_s`` and before the item was shown to him again. Behaviours are all the user's
    clicks strictly before the request.

    Raises:
        InputError: missing folder or column, wrong type, no impression or no click at all.
    """
    events = read_events(folder)
    shown = _of_kind(events, rules.shown_event, folder)
    clicked = _of_kind(events, rules.clicked_event, folder)
    label = attribute_clicks(shown, clicked, rules.attribution_s)
    user, item, time = shown
    is_test = latest_rows(user, time, rules.test_share)
    begins = cut_sittings(user, time, is_test, rules.pause_s, rules.max_candidates)
    click_user, click_item, click_time = clicked
    behaviours = behaviours_before(
        click_user, click_time, click_item, user[begins], time[begins], rules.behaviours
    )
    table = request_table(begins, user, time, item, label, behaviours, features={})
    train = table.filter(pa.array(~is_test[begins]))
    test = table.filter(pa.array(is_test[begins]))
    return Prepared(items_for(table, items), train, test)


def read_events(folder: Path) -> pa.Table:
    """All files of the folder, Parquet or else CSV."""
    files = sorted(folder.glob("*.csv"))
    if not files or any(folder.glob("*.parquet")):
        return check_columns(read_table(folder, list(COLUMNS)), folder, COLUMNS)
    return pa.concat_tables([read_csv(file, COLUMNS) for file in files])


def attribute_clicks(
    shown: tuple[np.ndarray, ...], clicked: tuple[np.ndarray, ...], attribution_s: int
) -> np.ndarray:
    """Which impressions were clicked: (N,) bool.

    Args:
        shown: user, item, time of N impressions, each (N,) int64, sorted by user and time.
        clicked: user, item, time of C clicks, each (C,) int64.
        attribution_s: seconds, not negative.
    """
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
    """Whether a later impression of the same pair came by ``moment``; all (N,)."""
    order = np.lexsort((time, pair))
    same = pair[order][1:] == pair[order][:-1]
    earlier, later = order[:-1][same], order[1:][same]
    again = np.zeros(len(pair), dtype=bool)
    again[earlier] = time[later] <= moment[earlier]
    return again


def _of_kind(events: pa.Table, kind: str, folder: Path) -> tuple[np.ndarray, ...]:
    """user, item, time of the events of one kind, sorted by user, time and place in the log."""
    chosen = events.filter(pc.equal(events["event"], kind))
    if chosen.num_rows == 0:
        kinds = ", ".join(sorted(pc.unique(events["event"]).to_pylist())[:10])
        raise InputError(f"{folder} column event must hold {kind!r} at least once, got {kinds}")
    user, item, time = (chosen[name].to_numpy() for name in ("user_id", "item_id", "timestamp"))
    order = np.lexsort((time, user))
    return user[order], item[order], time[order]
