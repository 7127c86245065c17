"""Names of features: whatever belongs to an item, a request or a behaviour, no two share one.

Batches and tables know a feature by its name alone: of two owners of one name, the second would
overwrite the rows of the first.
"""

from collections.abc import Iterable

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
) -> None:
    """Refuse two features of one name, and two whose tables would have one.

    Args:
        item, request, behaviour, impression: names by owner, ``item_id`` and ``user_id`` too.
        where: begins the complaint.

    Raises:
        InputError: naming both columns.
    """
    owned = (item, request, behaviour, impression)
    taken: dict[str, tuple[str, str]] = {}
    for (owner, folder), names in zip(OWNERS, owned, strict=True):
        for name in names:
            table = table_name(name)
            if table in taken:
                other, other_folder = taken[table]
                why = "" if name == other else f", {other}, as both tables would be {table}"
                raise InputError(
                    f"{where}{owner} {name} must not share its name with a column of "
                    f"{other_folder}{why}: rename one of the two"
                )
            taken[table] = name, folder
