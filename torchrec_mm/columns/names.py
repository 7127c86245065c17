"""Columns by name, compared in one way by every reader, whatever its engine would do.

A column is found by its exact name. Another one of the same name but for case and the spaces
around it (``Item_ID``, `` item_id``) is refused by name: one engine would read it in place of the
first, the other would take it for a feature. Headers of CSV files alone may be written so, as those
of MovieLens are; of two that fit none is chosen.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from torchrec_mm.errors import InputError


def refuse_lookalikes(where: Path | str, given: Collection[str], promised: Collection[str]) -> None:
    """Refuse a column that is called like a promised one but for case and spaces around it.

    Args:
        where: names the file in the complaint. given: its columns. promised: those that mean
            something, whether they must be there or not.
    """
    promised_by_key = {_key(name): name for name in promised}
    for name in given:
        meant = promised_by_key.get(_key(name), name)
        if name != meant:
            raise InputError(
                f"{where} column {name!r} must be named {meant}, or else differ from it by more "
                f"than case and spaces, got {', '.join(given)}"
            )


def alike(one: str, other: str) -> bool:
    """Whether two names are one but for case and the spaces around them."""
    return _key(one) == _key(other)


def place_of(where: Path | str, header: Sequence[str], name: str) -> int:
    """Where a column is in a CSV header, case and spaces apart; InputError for none, or several."""
    places = [at for at, given in enumerate(header) if _key(given) == _key(name)]
    if not places:
        raise InputError(f"{where} must have a column {name}, got {', '.join(header)}")
    if len(places) > 1:
        found = ", ".join(repr(header[at]) for at in places)
        raise InputError(f"{where} must have one column {name}, got {found}")
    return places[0]


def _key(name: str) -> str:
    return name.strip().casefold()
