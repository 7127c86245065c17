"""What an importer has to know of a ranker besides its program: order of columns, tables, numbers.

All of it becomes JSON; README.md says what each word means.
"""

from collections.abc import Iterable
from typing import Any

from torchrec_mm.data.contract.texts import NULL
from torchrec_mm.data.encoded.normaliser import CLIP
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.exporting.inputs import Input
from torchrec_mm.ranking.effects import EFFECTS
from torchrec_mm.ranking.id_hash import MIX
from torchrec_mm.ranking.spec import RankerSpec
from torchrec_mm.scoring.export import file_of

FORMAT = 1


def described(
    spec: RankerSpec, vocabularies: Vocabularies, inputs: dict[str, Input], behaviours: int
) -> dict[str, Any]:
    """Of a program; ``behaviours``: the newest of a request that it looks at."""
    tables = spec.tables
    found: dict[str, Any] = {
        "format": FORMAT,
        "method": spec.method,
        "inputs": {name: vars(each) for name, each in inputs.items()},
        "most_behaviours": behaviours,
        "embedding_dim": spec.embedding_dim,
        "null_id": NULL,
        "request_features": _features(spec, vocabularies, "request", tables.request),
        "item_features": _features(spec, vocabularies, "item", tables.item),
        "impression_features": _features(spec, vocabularies, "impression", tables.impression),
        "behaviour_features": _features(spec, vocabularies, "behaviour", tables.behaviour),
        "request_numbers": _numbers(vocabularies, "request"),
        "target_numbers": _numbers(vocabularies, "item") + _numbers(vocabularies, "impression"),
        "sequences": list(spec.sequences),
    }
    if spec.effects:
        found["effects"] = {"table": file_of("request", EFFECTS)}
    return found


def _features(
    spec: RankerSpec, vocabularies: Vocabularies, group: str, names: Iterable[str]
) -> list[dict[str, Any]]:
    """In the order of the columns of an input: where its table is, and how its rows are found."""
    return [_feature(spec, vocabularies, group, name) for name in names]


def _feature(spec: RankerSpec, vocabularies: Vocabularies, group: str, name: str) -> dict[str, Any]:
    is_bag = name in spec.bags
    of = f"{group}_bag" if is_bag else group
    found: dict[str, Any] = {"name": name, "table": file_of(of, name, spec.shared.get(name))}
    if name in spec.zero_collision:
        partitions = spec.zero_collision[name].partitions
        return {**found, "kind": "raw_id", "partitions": partitions, "mix": list(MIX)}
    known = getattr(vocabularies, of).get(name)
    if known is None:  # a semantic code, which no vocabulary knows
        return {**found, "kind": "code"}
    found |= {"kind": "bag" if is_bag else "id", "ids": f"{of}/{name}"}
    found["is_text"] = known.texts is not None
    return {**found, "pooling": spec.bags[name].pooling} if is_bag else found


def _numbers(vocabularies: Vocabularies, group: str) -> list[dict[str, Any]]:
    """In order; each is (x - centre) / scale, clipped, of x or of log(1 + x)."""
    return [
        {"name": name, "of": group, **vars(normaliser), "clip": CLIP}
        for name, normaliser in vocabularies.numbers_of(group).items()
    ]
