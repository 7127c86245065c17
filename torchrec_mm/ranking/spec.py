"""What fixes a ranker's shape: written to model.json, read back for the checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchrec_mm.data.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.ranking.make import MakeSpec, make_spec_from_json

METHODS = ("id", "vector", "simscore", "simtier", "make", "simtier+make", "muse")


@dataclass(frozen=True)
class TableSizes:
    """Rows of each table by feature name, grouped as in ``Vocabularies``."""

    request: Mapping[str, int]
    item: Mapping[str, int]
    behaviour: Mapping[str, int]

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


@dataclass(frozen=True)
class RankerSpec:
    """All that fixes the ranker's shape.

    method: one of METHODS. tables: rows of each table. embedding_dim: of each table.
    hidden: widths of the MLP's hidden layers; as many as MAKE's where MAKE joins.
    num_tiers: SimTier's N. vector_width: D, 0 for method id. base_rate: clicks per impression of
    the training data, in (0, 1), where the logit starts. make: MAKE's shape for the methods that
    hold it, None for the others. behaviour_tables: the item tables that behaviours have rows in,
    where muse attends. kept: behaviours that muse's general search keeps, K.

    Raises:
        ValueError: method and make, or their hidden layers, do not go together.
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

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method}")
        if (self.make is not None) != self.has("make"):
            raise ValueError(f"make must be given exactly when method has it, got {self.method}")

    def has(self, part: str) -> bool:
        """Whether the method holds ``part``: "simtier+make" has both of its halves."""
        return part in self.method.split("+")


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
            "make": make_spec_from_json(value["make"]) if value["make"] else None,
        }
        return RankerSpec(**{**value, **parts})
    except (KeyError, TypeError) as error:
        raise InputError(f"model.json must describe a ranker of this version: {error}") from error
