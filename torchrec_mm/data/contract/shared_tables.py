"""Columns that share one vocabulary and one table: what one of them shows, the others know."""

from collections.abc import Mapping

from torchrec_mm.data.contract.features import Bag, Feature, categories_of
from torchrec_mm.data.contract.texts import TextIds
from torchrec_mm.errors import InputError


def shared_tables(columns: Mapping[str, Feature]) -> dict[str, str]:
    """The table that each column names which names one.

    Raises:
        InputError: of one table, columns of text and of numbers, of two ``min_count``, or bags of
            two ``pooling``.
    """
    categories = categories_of(columns)
    found = {name: each.table for name, each in categories.items() if each.table is not None}
    said: dict[str, dict[str, object]] = {
        "kind": {n: "int64" if categories[n].text_ids is None else "string" for n in found},
        "min_count": {n: categories[n].min_count for n in found},
        "pooling": {n: bag.pooling for n in found if isinstance(bag := columns[n], Bag)},
    }
    for field, values in said.items():
        first: dict[str, str] = {}
        for name, value in values.items():
            other = first.setdefault(found[name], name)
            if values[other] != value:
                rule = f"columns of table {found[name]} must be of one {field}"
                raise InputError(f"{rule}, got {values[other]} of {other} and {value} of {name}")
    return found


def joined_texts(columns: Mapping[str, Feature], table: str) -> TextIds | None:
    """The texts of all columns of a table, None where they are numbers; InputError as ``check``."""
    each = [c.text_ids for c in categories_of(columns).values() if c.table == table]
    known = [text_ids for text_ids in each if text_ids is not None]
    if not known:
        return None
    joined = TextIds.joined(known)
    joined.check(f"table {table}")
    return joined
