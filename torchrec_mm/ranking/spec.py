"""What fixes a ranker's shape: written to model.json, read back for the checkpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchrec_mm.data.contract.feature_names import check_names
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.data.stream.batches import RAW_IDS
from torchrec_mm.errors import InputError
from torchrec_mm.ranking.make import MakeSpec, make_spec_from_json
from torchrec_mm.ranking.zero_collision import ZeroCollision

METHODS = ("id", "vector", "simscore", "simtier", "make", "simtier+make", "muse")


@dataclass(frozen=True)
class TableSizes:
    """Rows of each table by feature name, grouped as in ``Vocabularies``.

    Raises:
        InputError: two features of one name.
    """

    request: Mapping[str, int]
    item: Mapping[str, int]
    behaviour: Mapping[str, int]

    def __post_init__(self) -> None:
        check_names(self.item, self.request, self.behaviour)

    @classmethod
    def of(cls, vocabularies: Vocabularies, meta: Mapping[str, Any], method: str) -> "TableSizes":
        """The tables of an encoded data set, in the order of its meta.json.

        Muse has none for behaviour attributes.
        """
        behaviour = [] if method == "muse" else meta["behaviour_features"]
        return cls(
            {name: vocabularies.request[name].num_rows for name in meta["request_features"]},
            {name: vocabularies.item[name].num_rows for name in meta["item_features"]},
            {name: vocabularies.behaviour[name].num_rows for name in behaviour},
        )

    def check(self, num_rows: Mapping[str, int], where: Path) -> None:
        """Refuse the data set ``where`` if its ``num_rows`` by feature are not these.

        Raises:
            InputError: naming the first feature that differs.
        """
        for name, rows in {**self.request, **self.item, **self.behaviour}.items():
            if num_rows.get(name) != rows:
                raise InputError(
                    f"{where} must have {rows} table rows for feature {name}, as the ranker has, "
                    f"got {num_rows.get(name, 'none')}"
                )


@dataclass(frozen=True)
class RankerSpec:
    """All that fixes the ranker's shape.

    method: one of METHODS. tables: rows of each table. embedding_dim: of each table.
    hidden: widths of the MLP's hidden layers; as many as MAKE's where MAKE joins.
    num_tiers: SimTier's N. vector_width: D, 0 for method id. base_rate: clicks per impression of
    the training data, in (0, 1), where the logit starts. make: MAKE's shape for the methods that
    hold it, None for the others. behaviour_tables: the item tables that behaviours have rows in,
    where muse attends. kept: behaviours that muse's general search keeps, K. zero_collision: tables
    of raw ids, of features in RAW_IDS; these have its number of rows, not that of ``tables``.

    Raises:
        ValueError: method and make, or their hidden layers, do not go together, or a feature that
            has no raw ids.
    """

    method: str
    tables: TableSizes
    embedding_dim: int
    hidden: tuple[int, ...]
    num_tiers: int
    vector_width: int
    base_rate: float
    make: MakeSpec | None
    behaviour_tables: tuple[str, ...]
    kept: int
    zero_collision: Mapping[str, ZeroCollision] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method}")
        if (self.make is not None) != self.has("make"):
            raise ValueError(f"make must be given exactly when method has it, got {self.method}")
        check_raw_ids(self.zero_collision)

    def has(self, part: str) -> bool:
        """Whether the method holds ``part``: "simtier+make" has both of its halves."""
        return part in self.method.split("+")


def check_raw_ids(features: Iterable[str]) -> None:
    """Refuse tables of raw ids for features whose raw ids are not kept.

    Raises:
        InputError: naming the first of them.
    """
    for name in features:
        if name not in RAW_IDS:
            raise InputError(
                f"zero_collision must name {' or '.join(RAW_IDS)}, the features whose raw ids an "
                f"encoded data set keeps, got {name}"
            )


def spec_from_json(value: dict) -> RankerSpec:
    """The spec that ``dataclasses.asdict`` and JSON made ``value`` of.

    Raises:
        InputError: it is another version's.
    """
    try:
        parts = {
            "tables": TableSizes(**value["tables"]),
            "hidden": tuple(value["hidden"]),
            "behaviour_tables": tuple(value["behaviour_tables"]),
            "zero_collision": {
                name: ZeroCollision(**table) for name, table in value["zero_collision"].items()
            },
            "make": make_spec_from_json(value["make"]) if value["make"] else None,
        }
        return RankerSpec(**{**value, **parts})
    except (KeyError, TypeError) as error:
        raise InputError(f"model.json must describe a ranker of this version: {error}") from error
