"""What training holds, as vocabularies and normalisers."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from torchrec_mm.data.encode.all_items import AllItems
from torchrec_mm.data.encode.count import FeatureIds
from torchrec_mm.data.encode.number import NumberedSplit
from torchrec_mm.data.encode.quantiles import quantiles
from torchrec_mm.data.encode.source import TRAIN, RequestSource
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.data.encoded.normaliser import SHARES, Normaliser
from torchrec_mm.data.encoded.vocabulary import Vocabularies, Vocabulary, in_order


def learn_features(source: RequestSource, features: Mapping[str, FeatureIds]) -> Vocabularies:
    """Vocabularies of requests and behaviours: every value in training but ``source.missing``."""
    request, behaviour = (
        {name: _all(name, features[name].trained_ids, source) for name in in_order(names)}
        for names in (source.request_features, source.behaviour_features)
    )
    return Vocabularies(request=request, item={}, behaviour=behaviour)


def learn_items(
    source: RequestSource, all_items: AllItems, min_count: int
) -> Mapping[str, Vocabulary]:
    """Vocabularies of the item features.

    An item has its own row when training has it at least ``min_count`` times as a candidate or
    behaviour; an attribute keeps each value that an item of training has.
    """
    train = all_items.counts[TRAIN]
    shown = train.candidates + train.behaviours
    is_rare = (shown > 0) & (shown < min_count)
    learned = {
        "item_id": Vocabulary(all_items.item_ids[shown >= min_count], all_items.item_ids[is_rare])
    }
    for name in source.items.attributes:
        values, known = all_items.attribute(name)
        learned[name] = _all(name, np.unique(values[known & (shown > 0)]), source)
    return {name: learned[name] for name in in_order(learned)}


def learn_numbers(
    source: RequestSource, numbered: NumberedSplit, all_items: AllItems
) -> dict[str, Normaliser]:
    """Normalisers of the numeric features, by ``<group>/<name>``.

    ``numbered``: the training split. Items count once each, those that training shows.

    Raises:
        InputError: a column of nothing but nulls, or of one value.
    """
    learned = {}
    for group, names, count in (
        ("request", source.request_numbers, numbered.sizes["requests"]),
        ("impression", source.impression_numbers, numbered.sizes["impressions"]),
    ):
        for name in names:
            blocks = partial(numbered.spool.blocks, f"{group}_number/{name}", count)
            found, column = quantiles(blocks, SHARES), f"requests/{TRAIN} column {name}"
            learned[f"{group}/{name}"] = Normaliser.of(found, name in source.log1p, column)
    train = all_items.counts[TRAIN]
    shown = (train.candidates + train.behaviours) > 0
    for name in source.items.numbers:
        found = quantiles(partial(iter, [all_items.numbers(name)[shown]]), SHARES)
        column = f"items/ column {name}"
        learned[f"item/{name}"] = Normaliser.of(found, name in source.log1p, column)
    return learned


def frequency_of(all_items: AllItems) -> ItemFrequency:
    """Training impressions of each item that has some."""
    candidates = all_items.counts[TRAIN].candidates
    shown = candidates > 0
    return ItemFrequency(all_items.item_ids[shown], candidates[shown])


def _all(name: str, ids: np.ndarray, source: RequestSource) -> Vocabulary:
    known = ids if source.missing is None else ids[ids != source.missing]
    texts = source.text_ids[name].texts(known) if name in source.text_ids else None
    return Vocabulary(known, np.empty(0, np.int64), texts)
