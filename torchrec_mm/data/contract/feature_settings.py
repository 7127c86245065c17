"""`features.yaml` beside `items/`: what the types of columns do not say, by column name.

    ignore: [note, url]                          # neither read nor refused
    price: {transform: log1p}                    # of a number: log(1 + x) in place of x
    visits: {kind: numeric, transform: log1p}    # integers are categories unless it says so
    brand: {min_count: 5}                        # rarer values share a row
    tags: {pooling: sum}                         # of a bag, in place of the mean
    likes: {kind: bag, table: tags}              # a list of requests/ is a bag if it says so
    genres: {table: tags}                        # and shares vocabulary and table with another

`kind: ignore` of a column says the same as its name in the list.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torchrec_mm.documents import read_yaml
from torchrec_mm.errors import InputError

FILE = "features.yaml"
IGNORE = "ignore"
BAG = "bag"
KINDS = ("categorical", "numeric", BAG, IGNORE)
POOLINGS = ("mean", "sum")


@dataclass(frozen=True)
class FeatureSettings:
    """What is said of one column.

    kind: one of KINDS; None: as its type says. transform: log1p or None. min_count: training
    occurrences from which a value has a row of its own. pooling: of a bag, one of POOLINGS; None:
    the mean. table: that it shares with the other columns that name it; None: one of its own.
    """

    kind: str | None = None
    transform: str | None = None
    min_count: int = 1
    pooling: str | None = None
    table: str | None = None

    @classmethod
    def of(cls, said: Any, where: str) -> "FeatureSettings":
        """Out of YAML; InputError, naming ``where``, for a key or a value that there is not."""
        names = [field.name for field in fields(cls)]
        if not isinstance(said, dict):
            raise InputError(f"{where} must be a mapping of {', '.join(names)}, got {said!r}")
        for key in said:
            if key not in names:
                raise InputError(f"{where} must be of {', '.join(names)}, got {key!r}")
        settings = cls(**said)
        if settings.kind not in (None, *KINDS):
            raise InputError(f"{where} kind must be {' or '.join(KINDS)}, got {settings.kind!r}")
        if settings.transform not in (None, "log1p"):
            raise InputError(f"{where} transform must be log1p, got {settings.transform!r}")
        if type(settings.min_count) is not int or settings.min_count < 1:
            rule = f"{where} min_count must be a whole number of at least 1"
            raise InputError(f"{rule}, got {settings.min_count!r}")
        if settings.pooling not in (None, *POOLINGS):
            raise InputError(f"{where} pooling must be mean or sum, got {settings.pooling!r}")
        if settings.table is not None and not (
            isinstance(settings.table, str) and settings.table.strip()
        ):
            raise InputError(f"{where} table must be a name, got {settings.table!r}")
        return settings


def read_settings(data: Path) -> dict[str, FeatureSettings]:
    """What a data folder says of its columns, by name; nothing where it has no such file.

    Raises:
        InputError: a file that is no mapping, an unknown key, a value that none can have.
    """
    path = data / FILE
    said = read_yaml(path) if path.is_file() else None
    if said is None:
        return {}
    if not isinstance(said, dict):
        raise InputError(f"{path} must be a mapping by column name, got {said!r}")
    settings = {
        str(name): FeatureSettings.of(each, f"{path} {name}")
        for name, each in said.items()
        if name != IGNORE
    }
    ignored = said.get(IGNORE, [])
    if not isinstance(ignored, list):
        raise InputError(f"{path} {IGNORE} must be a list of column names, got {ignored!r}")
    for name in map(str, ignored):
        if name in settings:
            raise InputError(f"{path} must say one thing of {name}, got more besides {IGNORE}")
        settings[name] = FeatureSettings(kind=IGNORE)
    return settings
