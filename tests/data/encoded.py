"""Requests and catalogues from plain lists."""

import numpy as np

from torchrec_mm.data.items import ItemCatalogue
from torchrec_mm.data.jagged import Jagged
from torchrec_mm.data.requests import Requests


def jagged(lists: list[list[int]]) -> Jagged:
    values = np.array([value for values in lists for value in values], dtype=np.int64)
    return Jagged(values, np.cumsum([0, *map(len, lists)]))


def requests_of(
    behaviours: list[list[int]],
    candidates: list[list[int]],
    *,
    labels: list[int] | None = None,
    user_ids: list[int] | None = None,
    features: dict[str, list[int]] | None = None,
    behaviour_attributes: dict[str, list[int]] | None = None,
) -> Requests:
    """Requests in memory; user r is r, the first candidate is clicked, unless given."""
    count = len(candidates)
    firsts = [int(i == 0) for ids in candidates for i in range(len(ids))]
    return Requests(
        user_ids=np.array(range(count) if user_ids is None else user_ids),
        timestamps=None,
        behaviours=jagged(behaviours),
        candidates=jagged(candidates),
        labels=np.array(firsts if labels is None else labels, dtype=np.int8),
        features={name: np.array(ids) for name, ids in (features or {}).items()},
        behaviour_attributes={
            name: np.array(ids) for name, ids in (behaviour_attributes or {}).items()
        },
    )


def catalogue_of(item_ids: list[int], **attributes: list[int]) -> ItemCatalogue:
    """Items, given in ascending order."""
    columns = {name: np.array(values) for name, values in attributes.items()}
    return ItemCatalogue(np.array(item_ids), None, columns)
