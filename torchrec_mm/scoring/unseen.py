"""Values that training never showed: how many of them are among those that are scored, by feature.

All of them are on row 0 of their feature's table, whichever command reads the requests.
"""

from collections.abc import Iterator

import numpy as np

from torchrec_mm.data.encoded.encoded import EncodedRequests, RequestArrays
from torchrec_mm.data.encoded.vocabulary import UNSEEN


def categorical_features(data: EncodedRequests) -> list[str]:
    """Names of all features that have a table, in the order of ``unseen_counts``."""
    groups = (
        *("request_features", "request_bags", "item_features", "item_bags"),
        *("behaviour_features", "impression_features"),
    )
    return [name for group in groups for name in data.meta.get(group, ())]


def unseen_counts(requests: RequestArrays, data: EncodedRequests) -> np.ndarray:
    """(F, 2) int64: values that training never showed, and all values, of some requests.

    Of features of items, those of candidates, and of behaviours where behaviours have them; of
    bags, the values in them.
    """
    return np.array([(np.count_nonzero(v == UNSEEN), len(v)) for v in _rows(requests, data)])


def in_words(data: EncodedRequests, counts: list[list[int]]) -> dict[str, dict[str, float]]:
    """``unseen`` of metrics.json: by feature the number, how many values there are, and the share.

    ``counts``: a sum of ``unseen_counts``.
    """
    return {
        name: {"unseen": unseen, "values": values, "share": unseen / max(values, 1)}
        for name, (unseen, values) in zip(categorical_features(data), counts, strict=True)
    }


def _rows(requests: RequestArrays, data: EncodedRequests) -> Iterator[np.ndarray]:
    """Table rows of all values, feature by feature."""
    for name in data.meta["request_features"]:
        yield requests.request_rows[name]
    for name in data.meta.get("request_bags", ()):
        yield requests.request_bags[name].values
    shown = requests.candidates.values
    with_behaviours = np.concatenate([shown, requests.behaviours.values])
    of_both = data.meta["behaviour_item_features"]
    for name, table_rows in zip(data.items.features, data.items.rows, strict=True):
        yield table_rows[with_behaviours if name in of_both else shown]
    for name in data.meta.get("item_bags", ()):
        bags = data.items.bags[name]
        yield bags.values[bags.positions(with_behaviours if name in of_both else shown)[0]]
    for name in data.meta["behaviour_features"]:
        yield requests.behaviour_rows[name]
    for name in data.meta.get("impression_features", ()):
        yield requests.impression_rows[name]
