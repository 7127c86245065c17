"""Clicks of a search that are kept as hard negatives, and those that are not."""

import numpy as np
import pyarrow as pa
import pytest

from torchrec_mm.data.contract.search_rows import MAX_HARD_NEGATIVES, SearchRows
from torchrec_mm.ids import IdIndex


@pytest.mark.parametrize(("clicks", "cut"), [(8, 0), (9, 1), (20, 1)])
def test_searches_with_more_clicks_than_are_kept_are_counted(clicks, cut):
    rows = SearchRows(IdIndex(np.arange(30)))
    clicked = [[1, *range(2, 2 + clicks)], [3], []]  # the bought item is no click of its own
    table = pa.table(
        {
            "search_id": pa.array([5, 6, 7]),
            "timestamp": pa.array([1, 2, 3]),
            "purchased_item_id": pa.array([1, 1, 1]),
            "clicked_item_ids": pa.array(clicked, pa.list_(pa.int64())),
        }
    )
    rows.add(table, "here")
    kept = min(clicks, MAX_HARD_NEGATIVES)
    assert rows.arrays()["hard"][0, :kept].tolist() == [*range(2, 2 + kept)]
    assert rows.cut_short == cut
