"""A study as a YAML file: rows that differ in one thing each, and what they are compared with.

The rows of the paper's questions are recipes in ``recipes/``; a user's own is a file like them.
"""

import re
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from torchrec_mm.config import check_fields, parse
from torchrec_mm.errors import InputError

SHIPPED = Path(__file__).with_name("recipes")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 +/.,%_-]*")
NONE, EACH, RANDOM, CONSTANT = "none", "each", "random", "constant"


@dataclass(frozen=True, kw_only=True)
class VectorsOf:
    """The item vectors of a row, made from a set that is given.

    of: "none"; "own", the first set that is given; "each", the row is repeated with every set;
    "random", as wide as the first but without meaning; "constant", all alike, so that only their
    number is left to count. share: of the items that keep their vector. width: of the PCA they
    are reduced to, 0 as they are. bits: of each number; 32 is float32.
    """

    of: Literal["none", "own", "each", "random", "constant"] = "none"
    share: float = 1.0
    width: int = 0
    bits: Literal[4, 8, 32] = 8

    def __post_init__(self) -> None:
        check_fields(self, lambda x: 0 < x <= 1, "in (0, 1]", "share")
        check_fields(self, lambda x: x >= 0, "at least 0", "width")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: what is trained.

    method: of apps.train_ranker. vectors: none for a method without. ranker, make: flags of
    apps.train_ranker and apps.train_make. train: share of the training requests. control: the row
    that this one is compared with besides the recipe's; empty: NAME/random, if there is one.
    """

    method: str
    vectors: VectorsOf = VectorsOf()
    ranker: dict[str, Any] = field(default_factory=dict)
    make: dict[str, Any] = field(default_factory=dict)
    train: float = 1.0
    control: str = ""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: 0 < x <= 1, "in (0, 1]", "train")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A study.

    about: what is asked, in a sentence or two. rows: by name, in the order of the table.
    seeds: runs of each row. tune: the flags of apps.train_ranker that each row is tried with on the
    validation split; a row's own win. validation: share of training that the split takes.
    baselines: rows that all others are compared with. slices: whether GAUC is told by item and
    user, too. claims: pairs of rows, the first above the second in GAUC by more than the interval.
    """

    title: str
    about: str
    rows: dict[str, Row]
    seeds: int = 5
    tune: tuple[dict[str, Any], ...] = ({},)
    validation: float = 0.15
    baselines: tuple[str, ...] = ()
    slices: bool = False
    claims: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "seeds")
        check_fields(self, lambda x: 0 < x < 1, "in (0, 1)", "validation")
        for name, number in (("rows", len(self.rows)), ("tune", len(self.tune))):
            if not number:
                raise InputError(f"{name} must hold at least one entry, got none")
        for name in self.rows:
            if not NAME.fullmatch(name):
                raise InputError(f"rows must have plain names, got {name!r}")
        controls = [row.control for row in self.rows.values() if row.control]
        for name in (*self.baselines, *controls, *chain.from_iterable(self.claims)):
            if name not in self.rows:
                raise InputError(f"{name} must be among rows: others are compared with it")


def read_recipe(name: str) -> Recipe:
    """A shipped recipe by its name, or one in a file.

    Raises:
        InputError: no such recipe, a key that is none, or a value that cannot be.
    """
    path = SHIPPED / f"{name}.yaml" if re.fullmatch(r"\w+", name) else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        raise InputError(f"recipe must be a YAML file or one of {known}, got {name}")
    try:
        return parse(Recipe, ["--config", str(path)])
    except ValueError as error:
        raise InputError(f"{path} {error}") from error
