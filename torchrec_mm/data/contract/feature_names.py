"""Names of features: whatever belongs to an item, a request or a behaviour, no two share one.

Batches and tables know a feature by its name alone: of two owners of one name, the second would
overwrite the rows of the first.
"""

from collections.abc import Iterable, Mapping

from torchrec_mm.errors import InputError

# Owner, and the folder whose column it is.
OWNERS = (
    ("item attribute", "items/"),
    ("user or context feature", "requests/"),
    ("behaviour attribute", "requests/"),
    ("impression feature", "requests/"),
)


def table_name(feature: str) -> str:
    """A name that a module can have: a column may well be called ``type`` or ``shop.id``."""
    return f"{feature.replace('.', '_')}_table"


def check_names(
    item: Iterable[str],
    request: Iterable[str],
    behaviour: Iterable[str],
    impression: Iterable[str],
    where: str = "",
    shared: Mapping[str, str] = {},
) -> None:
    """Refuse two features of one name, and two whose tables would have one that do not share it.

    Args:
        item, request, behaviour, impression: names by owner, ``item_id`` and ``user_id`` too.
        where: begins the complaint. shared: tables by the features that share one.

    Raises:
        InputError: naming both columns.
    """
    owned = (item, request, behaviour, impression)
    folders: dict[str, str] = {}
    of_tables: dict[str, str] = {}
    for (owner, folder), names in zip(OWNERS, owned, strict=True):
        for name in names:
            table = table_name(shared.get(name, name))
            other = name if name in folders else of_tables.get(table)
            shares = other != name and name in shared and shared[name] == shared.get(other or "")
            if other is not None and not shares:
                why = "" if name == other else f", {other}, as both tables would be {table}"
                raise InputError(
                    f"{where}{owner} {name} must not share its name with a column of "
                    f"{folders[other]}{why}: rename one of the two"
                )
            folders[name], of_tables[table] = folder, name
