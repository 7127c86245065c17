"""What training holds, as vocabularies and normalisers."""

import logging
from collections.abc import Mapping
from functools import partial

import numpy as np

from torchrec_mm.columns.parquet import INT64
from torchrec_mm.data.contract.features import (
    NULL,
    Bag,
    Categorical,
    Numeric,
    categories_of,
    of_kind,
)
from torchrec_mm.data.contract.shared_tables import joined_texts, shared_tables
from torchrec_mm.data.contract.texts import TextIds
from torchrec_mm.data.encode.all_items import AllItems
from torchrec_mm.data.encode.count import FeatureIds
from torchrec_mm.data.encode.item_bags import ItemBags
from torchrec_mm.data.encode.number import NumberedSplit
from torchrec_mm.data.encode.quantiles import quantiles
from torchrec_mm.data.encode.source import TRAIN, RequestSource
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.data.encoded.normaliser import SHARES, Normaliser
from torchrec_mm.data.encoded.vocabulary import Vocabularies, Vocabulary, in_order

logger = logging.getLogger(__name__)

MANY = 1000  # rows from which it is no chance that no value comes twice
ANY_NUMBER = Categorical(INT64)  # what ids of users are, and columns that come with names alone


def learn_shared(
    source: RequestSource,
    features: Mapping[str, FeatureIds],
    all_items: AllItems,
    bags: ItemBags,
) -> dict[str, Vocabulary]:
    """By column the vocabulary that all columns of its table share, of what training shows in any.

    Raises:
        InputError: columns of one table that do not go together.
    """
    of_tables = shared_tables(source.further)
    learned: dict[str, Vocabulary] = {}
    for table in dict.fromkeys(of_tables.values()):
        names = [name for name, of in of_tables.items() if of == table]
        shown = [_trained(name, source, features, all_items, bags) for name in names]
        ids, places = np.unique(np.concatenate([ids for ids, _ in shown]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([counts for _, counts in shown]), len(ids))
        texts = joined_texts(source.further, table)
        learned |= dict.fromkeys(names, _shown(names[0], ids, counts, source, texts))
    return learned


def _trained(
    name: str,
    source: RequestSource,
    features: Mapping[str, FeatureIds],
    all_items: AllItems,
    bags: ItemBags,
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a column in training, and how often: (n,) int64."""
    if name in features:
        return features[name].trained
    if name in bags.features:
        return bags.trained(name, all_items.of_catalogue(TRAIN))
    return _of_items(name, all_items)


def learn_features(
    source: RequestSource,
    features: Mapping[str, FeatureIds],
    shared: Mapping[str, Vocabulary] = {},
) -> Vocabularies:
    """Vocabularies of requests and behaviours: every value in training but ``source.missing``.

    ``shared``: what ``learn_shared`` has learned.
    """
    found = {
        name: shared[name] if name in shared else _of_requests(name, feature, source)
        for name, feature in features.items()
    }
    request, behaviour, impression = (
        {name: found[name] for name in in_order(names)}
        for names in (
            source.request_features,
            source.behaviour_features,
            source.impression_features,
        )
    )
    return Vocabularies(
        request=request,
        item={},
        behaviour=behaviour,
        impression=impression,
        request_bag={name: found[name] for name in in_order(source.request_bags)},
        tables=shared_tables(source.further),
        pooling={name: bag.pooling for name, bag in of_kind(source.further, Bag).items()},
        sequences=tuple(source.sequences),
    )


def learn_items(
    source: RequestSource,
    all_items: AllItems,
    min_count: int,
    shared: Mapping[str, Vocabulary] = {},
) -> Mapping[str, Vocabulary]:
    """Vocabularies of the item features.

    An item has its own row when training has it at least ``min_count`` times as a candidate or
    behaviour; a value of an attribute when its items together have.
    """
    train = all_items.counts[TRAIN]
    shown = train.candidates + train.behaviours
    is_rare = (shown > 0) & (shown < min_count)
    learned = {
        "item_id": Vocabulary(all_items.item_ids[shown >= min_count], all_items.item_ids[is_rare])
    }
    for name in source.items.attributes:
        learned[name] = (
            shared[name] if name in shared else _shown(name, *_of_items(name, all_items), source)
        )
    return {name: learned[name] for name in in_order(learned)}


def _of_items(name: str, all_items: AllItems) -> tuple[np.ndarray, np.ndarray]:
    """Values of an attribute that training shows, and how often: (n,) int64."""
    train = all_items.counts[TRAIN]
    shown = train.candidates + train.behaviours
    values, known = all_items.attribute(name)
    with_value = known & (shown > 0)
    ids, places = np.unique(values[with_value], return_inverse=True)
    _warn_of_rows(name, len(ids), len(places))
    return ids, np.bincount(places, shown[with_value], len(ids))


def learn_item_bags(
    source: RequestSource,
    all_items: AllItems,
    bags: ItemBags,
    shared: Mapping[str, Vocabulary] = {},
) -> dict[str, Vocabulary]:
    """Vocabularies of the items' bags: a value is shown whenever an item is that has it."""
    shown = all_items.of_catalogue(TRAIN)
    return {
        name: shared[name] if name in shared else _shown(name, *bags.trained(name, shown), source)
        for name in in_order(bags.features)
    }


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
            learned[f"{group}/{name}"] = Normaliser.of(found, _log1p(name, source), column)
    train = all_items.counts[TRAIN]
    shown = (train.candidates + train.behaviours) > 0
    for name in source.items.numbers:
        found = quantiles(partial(iter, [all_items.numbers(name)[shown]]), SHARES)
        column = f"items/ column {name}"
        learned[f"item/{name}"] = Normaliser.of(found, _log1p(name, source), column)
    return learned


def _log1p(name: str, source: RequestSource) -> bool:
    column = source.further[name]
    assert isinstance(column, Numeric)  # has numbers
    return column.log1p


def frequency_of(all_items: AllItems) -> ItemFrequency:
    """Training impressions of each item that has some."""
    candidates = all_items.counts[TRAIN].candidates
    shown = candidates > 0
    return ItemFrequency(all_items.item_ids[shown], candidates[shown])


def _of_requests(name: str, feature: FeatureIds, source: RequestSource) -> Vocabulary:
    ids, counts = feature.trained
    if name != "user_id":
        _warn_of_rows(name, len(ids), int(counts.sum()))
    return _shown(name, ids, counts, source)


def _warn_of_rows(name: str, values: int, rows: int) -> None:
    if values == rows >= MANY:
        logger.warning(
            "column %s has as many values as rows, %d: a table row each that is learned from once",
            name,
            rows,
        )


def _shown(
    name: str,
    ids: np.ndarray,
    counts: np.ndarray,
    source: RequestSource,
    texts: TextIds | None = None,
) -> Vocabulary:
    """All ids but ``source.missing``, rare where they are shown less often than is asked for.

    ``texts``: of the ids, where the column does not know all of them.
    """
    column = categories_of(source.further).get(name, ANY_NUMBER)
    texts = texts or column.text_ids
    is_own = (counts >= column.min_count) | (ids == NULL)
    if source.missing is not None:
        is_own, ids = is_own[ids != source.missing], ids[ids != source.missing]
    known, rare = ids[is_own], ids[~is_own]
    if texts is None:
        return Vocabulary(known, rare)
    return Vocabulary(known, rare, texts.texts(np.concatenate([known, rare])))
