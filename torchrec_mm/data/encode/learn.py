"""What training holds, as vocabularies."""

from collections.abc import Mapping

import numpy as np

from torchrec_mm.data.encode.all_items import AllItems
from torchrec_mm.data.encode.count import DistinctIds, ItemCounts
from torchrec_mm.data.encode.source import RequestSource
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.data.encoded.vocabulary import Vocabularies, Vocabulary, in_order


def learn_features(source: RequestSource, distinct: DistinctIds) -> Vocabularies:
    """Vocabularies of requests and behaviours: every value in training but ``source.missing``."""
    return Vocabularies(
        request={n: _all(distinct.features[n], source) for n in in_order(source.request_features)},
        item={},
        behaviour={
            n: _all(distinct.features[n], source) for n in in_order(source.behaviour_features)
        },
    )


def learn_items(
    source: RequestSource, all_items: AllItems, train: ItemCounts, min_count: int
) -> Mapping[str, Vocabulary]:
    """Vocabularies of the item features.

    An item has its own row when training has it at least ``min_count`` times as a candidate or
    behaviour; an attribute keeps each value that an item of training has.
    """
    shown = train.candidates + train.behaviours
    is_rare = (shown > 0) & (shown < min_count)
    learned = {
        "item_id": Vocabulary(all_items.item_ids[shown >= min_count], all_items.item_ids[is_rare])
    }
    for name in source.items.attributes:
        values, known = all_items.attribute(name)
        learned[name] = _all(np.unique(values[known & (shown > 0)]), source)
    return {name: learned[name] for name in in_order(learned)}


def frequency_of(all_items: AllItems, train: ItemCounts) -> ItemFrequency:
    """Training impressions of each item that has some."""
    shown = train.candidates > 0
    return ItemFrequency(all_items.item_ids[shown], train.candidates[shown])


def _all(ids: np.ndarray, source: RequestSource) -> Vocabulary:
    known = ids if source.missing is None else ids[ids != source.missing]
    return Vocabulary(known, np.empty(0, np.int64))
