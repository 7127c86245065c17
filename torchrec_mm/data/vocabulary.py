"""Vocabularies: which ids have a table row of their own, and which share one."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.ids import IdIndex

UNSEEN, RARE = 0, 1


def in_order(names: Iterable[str]) -> list[str]:
    """Feature names in the order of tables and files: ids of users and items, then by name."""
    return sorted(names, key=lambda name: (name not in ("user_id", "item_id"), name))


@dataclass(frozen=True)
class Vocabulary:
    """Table rows of one categorical feature: two shared ones, then one for each known id.

    Row 0 is for ids that training never showed: no gradient reaches it, and it stays where it
    began, near zero. Row 1 is shared by the ids that training showed too rarely for a row of
    their own. The two differ: what is rare has been shown and passed over, what is unseen may
    just be new.

    known_ids, rare_ids: int64, ascending, with nothing in common.
    """

    known_ids: np.ndarray
    rare_ids: np.ndarray

    @property
    def num_rows(self) -> int:
        return len(self.known_ids) + 2

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """int64 rows in [0, num_rows) of ids of any shape."""
        known = IdIndex(self.known_ids).rows(ids)
        rare = IdIndex(self.rare_ids).rows(ids)
        return np.where(known >= 0, known + 2, np.where(rare >= 0, RARE, UNSEEN))


@dataclass(frozen=True)
class Vocabularies:
    """One vocabulary a table, grouped by what the feature belongs to.

    request: ``user_id`` and the user and context features, by column name.
    item: ``item_id`` and the item attributes. behaviour: the behaviour attributes.
    """

    request: Mapping[str, Vocabulary]
    item: Mapping[str, Vocabulary]
    behaviour: Mapping[str, Vocabulary]

    @property
    def fingerprint(self) -> str:
        """sha256 in hex over all names and ids: equal exactly where every id has the same row."""
        digest = hashlib.sha256()
        for key, ids in sorted(self._flat().items()):
            digest.update(f"{key} {len(ids)}\n".encode())
            digest.update(np.ascontiguousarray(ids, dtype="<i8"))
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write all of them as one safetensors file."""
        with new_file(path) as aside:
            save_file(self._flat(), aside)

    def _flat(self) -> dict[str, np.ndarray]:
        return {
            f"{part}/{group}/{name}": getattr(vocabulary, part)
            for group in ("request", "item", "behaviour")
            for name, vocabulary in getattr(self, group).items()
            for part in ("known_ids", "rare_ids")
        }

    @classmethod
    def load(cls, path: Path) -> "Vocabularies":
        if not path.is_file():
            raise InputError(f"{path} must be the vocabularies of a ranker run: no such file")
        groups: dict[str, dict[str, Vocabulary]] = {"request": {}, "item": {}, "behaviour": {}}
        flat = load_file(path)
        for key in sorted(key for key in flat if key.startswith("known_ids/")):
            _, group, name = key.split("/", 2)
            groups[group][name] = Vocabulary(flat[key], flat[f"rare_ids/{group}/{name}"])
        return cls(
            **{
                group: {name: found[name] for name in in_order(found)}
                for group, found in groups.items()
            }
        )
