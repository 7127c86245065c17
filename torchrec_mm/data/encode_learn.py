"""What training shows, as vocabularies."""

import numpy as np

from torchrec_mm.data.encode_census import Census
from torchrec_mm.data.encode_source import RequestSource
from torchrec_mm.data.encode_universe import Universe
from torchrec_mm.data.vocabulary import Vocabularies, Vocabulary, in_order


def learn(
    source: RequestSource, census: Census, universe: Universe, min_count: int
) -> Vocabularies:
    """Vocabularies of the split "train".

    An item has its own row when training has it at least ``min_count`` times as a candidate or
    behaviour. Every other feature keeps each value that training shows but ``source.missing``.
    """
    shown = census.shown > 0
    ids, counts = census.item_ids[shown], census.shown[shown]
    features = {name: _all(ids, source) for name, ids in census.features.items()}
    item = {name: _all(universe.shown_values(name, census), source) for name in universe.attributes}
    item["item_id"] = Vocabulary(ids[counts >= min_count], ids[counts < min_count])
    behaviour = {name for name in source.columns.behaviour_attributes if name in features}
    return Vocabularies(
        request={name: features[name] for name in in_order(features.keys() - behaviour)},
        item={name: item[name] for name in in_order(item)},
        behaviour={name: features[name] for name in in_order(behaviour)},
    )


def _all(ids: np.ndarray, source: RequestSource) -> Vocabulary:
    known = ids if source.missing is None else ids[ids != source.missing]
    return Vocabulary(known, np.empty(0, np.int64))
