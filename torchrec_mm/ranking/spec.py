"""What fixes a ranker's shape: written to model.json, read back for the checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from torchrec_mm.config import check_fields
from torchrec_mm.data.contract.feature_names import check_names
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.codes import code_tables
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.ranking.effects import effects_width
from torchrec_mm.ranking.make import MakeSpec, make_spec_from_json, make_spec_to_json
from torchrec_mm.ranking.zero_collision import ZeroCollision, check_raw_ids

# bias has no network, so no spec: see ``bias``.
Method = Literal[
    "bias", "id", "vector", "simscore", "simtier", "make", "simtier+make", "codes", "muse"
]
# Of simtier and of make, what a study can do without.
LeftOut = Literal[
    "simtier_logarithm", "simtier_weights", "make_interest", "make_hidden", "make_logit"
]
NAMES = ("request_numbers", "target_numbers", "sequences", "left_out")
SINCE_THEN = (*NAMES, "bags", "shared", "effects")  # what older runs say nothing of
METHODS = tuple(method for method in get_args(Method) if method != "bias")


@dataclass(frozen=True, kw_only=True)
class BagSpec:
    """A multi-hot feature. pooling: of embeddings, "mean" or "sum". mean_length: values a bag."""

    pooling: str
    mean_length: float


@dataclass(frozen=True)
class TableSizes:
    """Rows of each table by feature name, grouped as in ``Vocabularies``.

    Bags come after the other features of users, contexts or items.

    Raises:
        InputError: two features of one name.
    """

    request: Mapping[str, int]
    item: Mapping[str, int]
    behaviour: Mapping[str, int]
    impression: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_names(self.item, self.request, self.behaviour, self.impression)

    @property
    def all(self) -> dict[str, int]:
        """Rows by feature, in the order of tables."""
        return {**self.request, **self.item, **self.behaviour, **self.impression}

    @classmethod
    def of(
        cls,
        vocabularies: Vocabularies,
        meta: Mapping[str, Any],
        method: str,
        codes: Mapping[str, int] = {},
    ) -> "TableSizes":
        """Tables of an encoded data set, in its order; Muse has none for behaviour attributes.

        ``codes``: rows of the tables of semantic codes, by feature.
        """
        behaviour = [] if method == "muse" else meta["behaviour_features"]
        request = {name: vocabularies.request[name] for name in meta["request_features"]}
        item = {name: vocabularies.item[name].num_rows for name in meta["item_features"]}
        request |= {n: vocabularies.request_bag[n] for n in meta.get("request_bags", ())}
        check_names([*item, *codes], request, behaviour, ())
        item |= codes
        item |= {n: vocabularies.item_bag[n].num_rows for n in meta.get("item_bags", ())}
        return cls(
            {name: vocabulary.num_rows for name, vocabulary in request.items()},
            item,
            {name: vocabularies.behaviour[name].num_rows for name in behaviour},
            {name: each.num_rows for name, each in vocabularies.impression.items()},
        )

    def check(self, num_rows: Mapping[str, int], where: Path) -> None:
        """InputError, naming the first that differs, unless ``where`` has these ``num_rows``."""
        for name, rows in self.all.items():
            if num_rows.get(name) != rows:
                rule = f"{where} must have {rows} table rows for feature {name}, as the ranker has"
                raise InputError(f"{rule}, got {num_rows.get(name, 'none')}")


@dataclass(frozen=True, kw_only=True)
class RankerSettings:
    """The flags that decide a ranker's shape, besides its method and its data."""

    embedding_dim: int = 16
    """Width of every table, the bias column included; a multiple of 4."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the MLP's hidden layers."""
    num_tiers: int = 20
    """Tiers of SimTier over cosines in [-1, 1]."""
    kept: int = 50
    """Behaviours that muse keeps of those it searches, for each candidate."""
    effects: int = 36
    """Width of each user's own effects, fitted beside the network at the end; 0 for none."""
    left_out: tuple[LeftOut, ...] = ()
    """For studies, parts of the method to do without; simtier_logarithm leaves counts raw."""
    zero_collision: dict[str, ZeroCollision] = field(default_factory=dict)
    """Tables of user_id or item_id that take ids as they are: {user_id: {rows: 65536}}. The ids
    that matter most own a row each, newcomers take over from the weakest, and the rest share."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "hidden", "kept")
        check_fields(self, lambda x: x >= 2, "at least 2", "num_tiers")
        check_fields(self, lambda x: x > 0 and x % 4 == 0, "a multiple of 4", "embedding_dim")
        check_fields(self, lambda x: x >= 0 and x % 4 == 0, "0 or a multiple of 4", "effects")
        check_raw_ids(self.zero_collision)


@dataclass(frozen=True, kw_only=True)
class RankerSpec:
    """All that fixes the ranker's shape.

    method: one of METHODS. tables: rows of each table. embedding_dim: of each table.
    hidden: widths of the MLP's hidden layers; as many as MAKE's where MAKE joins.
    num_tiers: SimTier's N. vector_width: D, 0 for method id. base_rate: clicks per impression of
    the training data, in (0, 1), where the logit starts. make: MAKE's shape for the methods that
    hold it, None for the others. behaviour_tables: the item tables that behaviours have rows in,
    where muse attends. kept: behaviours that muse's general search keeps, K. zero_collision: tables
    of raw ids, of features in RAW_IDS; these have its number of rows, not that of ``tables``.
    request_numbers, target_numbers: numeric features of user and context, and of an impression and
    its item, in the batch's order. bags: by name, those among the features of ``tables``. shared:
    by name, the tables of features that share one. sequences: events of the further behaviour
    sequences. effects: width of the table of users' own effects, 0 without one. left_out: of the
    method, for studies.

    Raises:
        ValueError: method and make, or their hidden layers, do not go together, or a feature that
            has no raw ids. InputError is one.
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
    request_numbers: tuple[str, ...] = ()
    target_numbers: tuple[str, ...] = ()
    bags: Mapping[str, BagSpec] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    sequences: tuple[str, ...] = ()
    effects: int = 0
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {self.method}")
        if (self.make is not None) != self.has("make"):
            raise ValueError(f"make must be given exactly when method has it, got {self.method}")
        if self.make is not None and len(self.make.hidden) != len(self.hidden):
            rule = f"hidden must have as many layers as MAKE's, {len(self.make.hidden)}"
            raise InputError(f"{rule}, got {self.hidden}")
        for event in self.make.sequences if self.make else ():
            if event not in self.sequences:
                rule = f"requests must have {event}_item_ids, which MAKE has learned from"
                raise InputError(f"{rule}, got {', '.join(self.sequences) or 'no such sequence'}")
        check_raw_ids(self.zero_collision)

    @classmethod
    def of(
        cls,
        method: str,
        settings: RankerSettings,
        train: EncodedRequests,
        vectors: ItemVectors | None,
        make: MakeSpec | None = None,
    ) -> "RankerSpec":
        """The shape that a method and settings give a ranker on data, ``train`` and ``vectors``."""
        vocabularies = Vocabularies.load(train.folder / "vocabularies.safetensors")
        codes = code_tables(vectors) if vectors and method == "codes" else {}
        tables = TableSizes.of(vocabularies, train.meta, method, codes)
        taken = {*settings.zero_collision, *vocabularies.tables, *vocabularies.pooling}
        return cls(
            method=method,
            tables=tables,
            embedding_dim=settings.embedding_dim,
            hidden=settings.hidden,
            num_tiers=settings.num_tiers,
            vector_width=vectors.width if vectors else 0,
            base_rate=min(max(train.click_rate, 1e-6), 1 - 1e-6),
            make=make,
            behaviour_tables=tuple(train.meta["behaviour_item_features"]),
            kept=settings.kept,
            zero_collision=settings.zero_collision,
            request_numbers=tuple(train.meta.get("request_numbers", ())),
            target_numbers=(
                *train.meta.get("item_numbers", ()),
                *train.meta.get("impression_numbers", ()),
            ),
            bags={
                name: BagSpec(pooling=vocabularies.pooling[name], mean_length=length)
                for name, length in train.meta.get("bag_lengths", {}).items()
            },
            shared={n: table for n, table in vocabularies.tables.items() if n in tables.all},
            sequences=train.sequences,
            left_out=settings.left_out,
            effects=effects_width(settings.effects, tables, taken, None if codes else vectors),
        )

    @property
    def mean_lengths(self) -> dict[str, float]:
        """Values a bag, by feature of a table of bags."""
        ones = dict.fromkeys(self.shared, 1.0)
        return ones | {name: bag.mean_length for name, bag in self.bags.items()}

    @property
    def shared_ids(self) -> tuple[str, ...]:
        """Features without bags that share a table: each of their ids is a bag of its own."""
        return tuple(name for name in self.shared if name not in self.bags)

    @property
    def item_width(self) -> int:
        """Width of an item to the network: its tables, and its projected vector with vector."""
        of_vector = 2 * self.embedding_dim if self.has("vector") else 0
        return self.embedding_dim * len(self.tables.item) + of_vector

    @property
    def attended_tables(self) -> tuple[str, ...]:
        """The item tables that behaviours are looked up in."""
        return self.behaviour_tables if self.method == "muse" else tuple(self.tables.item)

    def has(self, part: str) -> bool:
        """Whether the method holds ``part``: "simtier+make" has both of its halves."""
        return part in self.method.split("+")


def spec_to_json(spec: RankerSpec) -> dict[str, Any]:
    """What ``spec_from_json`` reads.

    Numeric features, bags, features of impressions and further sequences are left out where there
    are none, as in runs of releases before them.
    """
    described = asdict(spec)
    if spec.make is not None:
        described["make"] = make_spec_to_json(spec.make)
    if not spec.tables.impression:
        del described["tables"]["impression"]
    return {n: v for n, v in described.items() if v or n not in SINCE_THEN}


def spec_from_json(value: dict) -> RankerSpec:
    """The spec that ``spec_to_json`` has described; InputError if another version's did."""
    try:
        parts = {
            "tables": TableSizes(**value["tables"]),
            "hidden": tuple(value["hidden"]),
            "behaviour_tables": tuple(value["behaviour_tables"]),
            **{name: tuple(value.get(name, ())) for name in NAMES},
            "bags": {name: BagSpec(**bag) for name, bag in value.get("bags", {}).items()},
            "zero_collision": {
                name: ZeroCollision(**table) for name, table in value["zero_collision"].items()
            },
            "make": make_spec_from_json(value["make"]) if value["make"] else None,
        }
        return RankerSpec(**{**value, **parts})
    except (KeyError, TypeError) as error:
        raise InputError(f"model.json must describe a ranker of this version: {error}") from error
