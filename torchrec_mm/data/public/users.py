"""Rows of users, each about an item and with a label, to requests: point in time, split by user.

The rules are those of MovieLens (data.prepare.sittings): a request is a sitting, behaviours are
what the user had liked strictly before it, and the latest share of each user's rows is for testing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from torchrec_mm.data.contract.request_columns import OF_CANDIDATES
from torchrec_mm.data.prepare.behaviours import behaviours_before
from torchrec_mm.data.prepare.event_chunks import whole_users
from torchrec_mm.data.prepare.further import feature_columns
from torchrec_mm.data.prepare.sittings import cut_sittings, latest_rows, request_table
from torchrec_mm.data.public.public_data import IS_TEST

NAMED = ("user_id", "timestamp", "item_id", "label")
IN = "in_"  # begins the names of further sequences of behaviours among the columns of rows


@dataclass(frozen=True, kw_only=True)
class FeedRules:
    """How rows become requests.

    pause_s: seconds without a row that end a request. max_candidates: rows of a request at most.
    behaviours: earlier likes of a request at most. test_share: of each user's rows, the latest.
    """

    pause_s: int
    max_candidates: int
    behaviours: int
    test_share: float


def requests_of_users(batches: Iterable[pa.RecordBatch], rules: FeedRules) -> Iterator[pa.Table]:
    """Requests with ``is_test``, some whole users at a time.

    Args:
        batches: user_id, timestamp and item_id, int64, and label, 0 or 1, sorted by user, then
            time. ``in_<event>``, bool: rows that are in the sequence ``<event>_item_ids`` of later
            requests. Further columns called ``candidate_...`` are features of the impression,
            others of the user, one value each.
    """
    for rows in whole_users(batches):
        yield _requests(rows, rules)


def _requests(rows: pa.Table, rules: FeedRules) -> pa.Table:
    user, time, item, label = (rows[name].to_numpy() for name in NAMED)
    is_test = latest_rows(user, time, rules.test_share)
    begins = cut_sittings(
        user, time, is_test, pause_s=rules.pause_s, max_candidates=rules.max_candidates
    )

    def before(chosen: np.ndarray) -> pa.ListArray:
        past = user[chosen], time[chosen], item[chosen]
        return behaviours_before(*past, user[begins], time[begins], rules.behaviours)

    table = request_table(begins, user, time, item, label, before(label == 1), features={})
    further = rows.drop_columns([*NAMED])
    for name in [name for name in further.column_names if name.startswith(IN)]:
        chosen = further[name].to_numpy(zero_copy_only=False).astype(bool)
        table = table.append_column(f"{name.removeprefix(IN)}_item_ids", before(chosen))
        further = further.drop_columns(name)
    names = {name: name for name in further.column_names if name.startswith(OF_CANDIDATES)}
    no_lists = np.full(np.count_nonzero(begins), -1)
    features = feature_columns(further, begins, names, no_lists, rules.behaviours)
    for name, values in features.items():
        table = table.append_column(name, values)
    return table.append_column(IS_TEST, pa.array(is_test[begins]))
