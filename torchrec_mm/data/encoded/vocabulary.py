"""Vocabularies: which ids have a table row of their own, and which share one."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.data.contract.feature_names import check_names
from torchrec_mm.data.contract.features import NULL
from torchrec_mm.data.encoded.normaliser import Normaliser
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.ids import IdIndex

UNSEEN, RARE = 0, 1
GROUPS = ("request", "item", "behaviour", "impression", "request_bag", "item_bag")
PARTS = ("known_ids", "rare_ids")
NUMBER_GROUPS = ("request", "item", "impression")
NORMALISER = "normaliser"
POOLING, TABLES = "pooling", "tables"  # in the file's metadata
SEQUENCE = "sequence/request/"  # begins the key of a name that stands for itself
TEXTS = ("text_bytes", "text_ends")  # of features of text alone


def in_order(names: Iterable[str]) -> list[str]:
    """Feature names in the order of tables and files: ids of users and items, then by name."""
    return sorted(names, key=lambda name: (name not in ("user_id", "item_id"), name))


@dataclass(frozen=True)
class Vocabulary:
    """Table rows of one categorical feature: two shared ones, then one for each known id.

    Row 0 is for ids that training never showed: no gradient reaches it, and it stays where it
    began, near zero, until a run follows requests that show such ids. Row 1 is shared by the ids
    that training showed too rarely for a row of their own. The two differ: what is rare has been
    shown and passed over, unseen may be new.

    known_ids, rare_ids: int64, ascending, with nothing in common. texts: large_string, what each
    known id stands for and then each rare one, null for ``NULL``; None where ids are numbers.
    """

    known_ids: np.ndarray
    rare_ids: np.ndarray
    texts: pa.Array | None = None

    @property
    def num_rows(self) -> int:
        return len(self.known_ids) + 2

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """int64 rows in [0, num_rows) of ids of any shape."""
        known = IdIndex(self.known_ids).rows(ids)
        rare = IdIndex(self.rare_ids).rows(ids)
        return np.where(known >= 0, known + 2, np.where(rare >= 0, RARE, UNSEEN))

    def arrays(self) -> dict[str, np.ndarray]:
        """What is saved, by PARTS and, of text, by TEXTS: UTF-8, and int64 ends in it."""
        arrays = {part: getattr(self, part) for part in PARTS}
        if self.texts is None:
            return arrays
        whole = pc.fill_null(self.texts, "")
        ends = np.cumsum(to_numpy(pc.binary_length(whole)), dtype=np.int64)
        return arrays | {"text_bytes": _utf8(whole), "text_ends": ends}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray | None]) -> "Vocabulary":
        """What ``arrays`` has made; None for what a feature without text lacks."""
        known_ids, rare_ids, text_bytes, ends = (arrays[part] for part in (*PARTS, *TEXTS))
        assert known_ids is not None and rare_ids is not None  # of every feature
        if text_bytes is None or ends is None:
            return cls(known_ids, rare_ids)
        ids = np.concatenate([known_ids, rare_ids])
        return cls(known_ids, rare_ids, texts_of(ids, text_bytes, np.append([0], ends)))


def texts_of(ids: np.ndarray, text_bytes: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """(n,) large_string, null for ``NULL``.

    ``ids``: (n,). ``text_bytes``: uint8, UTF-8. ``offsets``: (n + 1,), where each text begins in it
    and the last ends.
    """
    buffers = [pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), pa.py_buffer(text_bytes)]
    texts = pa.Array.from_buffers(pa.large_string(), len(ids), [None, *buffers])
    return pc.if_else(pa.array(ids == NULL), pa.scalar(None, texts.type), texts)


def _utf8(texts: pa.Array) -> np.ndarray:
    """All texts in one, uint8; none of them null."""
    joined = "".join(texts.to_pylist()).encode()
    return np.frombuffer(joined, np.uint8)


@dataclass(frozen=True)
class Vocabularies:
    """One vocabulary a table, grouped by what the feature belongs to, and what numbers need.

    request: ``user_id`` and the user and context features, by column name.
    item: ``item_id`` and the item attributes. behaviour: the behaviour attributes.
    impression: the features of impressions. request_bag, item_bag: multi-hot features.
    pooling: of the embeddings of each bag, by column name. tables: by column, those that share one.
    numbers: of numeric features by ``<group>/<name>``, groups as in NUMBER_GROUPS.
    sequences: events of the further behaviour sequences, which have no table of their own.
    """

    request: Mapping[str, Vocabulary]
    item: Mapping[str, Vocabulary]
    behaviour: Mapping[str, Vocabulary]
    impression: Mapping[str, Vocabulary] = field(default_factory=dict)
    numbers: Mapping[str, Normaliser] = field(default_factory=dict)
    request_bag: Mapping[str, Vocabulary] = field(default_factory=dict)
    item_bag: Mapping[str, Vocabulary] = field(default_factory=dict)
    pooling: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    sequences: tuple[str, ...] = ()

    def numbers_of(self, group: str) -> dict[str, Normaliser]:
        """The numeric features of a group, by name in their order in a batch."""
        found = {key.partition("/"): each for key, each in self.numbers.items()}
        return {name: each for (of, _, name), each in sorted(found.items()) if of == group}

    @property
    def fingerprint(self) -> str:
        """sha256 in hex over all names and ids: equal where each has the same row or number."""
        digest = hashlib.sha256()
        for key, ids in sorted(self._flat().items()):
            digest.update(f"{key} {len(ids)}\n".encode())
            digest.update(np.ascontiguousarray(ids, ids.dtype.newbyteorder("<")).data)
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write all of them as one safetensors file."""
        with new_file(path) as aside:
            save_file(self._flat(), aside, self._metadata())

    def _metadata(self) -> dict[str, str] | None:
        words = {POOLING: self.pooling, TABLES: self.tables}
        return {key: json.dumps(said) for key, said in words.items() if said} or None

    def _flat(self) -> dict[str, np.ndarray]:
        tables = {
            f"{part}/{group}/{name}": array
            for group in GROUPS
            for name, vocabulary in getattr(self, group).items()
            for part, array in vocabulary.arrays().items()
        }
        numbers = {f"{NORMALISER}/{key}": each.array() for key, each in self.numbers.items()}
        sequences = {f"{SEQUENCE}{event}": np.empty(0, np.int64) for event in self.sequences}
        return {**tables, **numbers, **sequences}

    @classmethod
    def load(cls, path: Path) -> "Vocabularies":
        """Read what ``save`` wrote; InputError as ``rows_of_tables``."""
        features = rows_of_tables(path)
        flat = load_file(path)
        return cls(
            **{
                group: {
                    name: Vocabulary.from_arrays(
                        {part: flat.get(f"{part}/{group}/{name}") for part in (*PARTS, *TEXTS)}
                    )
                    for name in in_order(found)
                }
                for group, found in features.items()
            },
            numbers={
                key.removeprefix(f"{NORMALISER}/"): Normaliser.from_array(array)
                for key, array in flat.items()
                if key.startswith(f"{NORMALISER}/")
            },
            pooling=said(path, POOLING),
            tables=said(path, TABLES),
            sequences=tuple(
                sorted(key.removeprefix(SEQUENCE) for key in flat if key.startswith(SEQUENCE))
            ),
        )


def rows_of_tables(path: Path) -> dict[str, dict[str, int]]:
    """``num_rows`` by group and feature in a saved file; InputError if garbled or ambiguous."""
    if not path.is_file():
        raise InputError(f"{path} must be the vocabularies of a ranker run: no such file")
    rows: dict[str, dict[str, int]] = {group: {} for group in GROUPS}
    try:
        with safe_open(path, framework="numpy") as file:
            for key in sorted(file.keys()):
                part, group, name = key.split("/", 2)
                if part == "known_ids":
                    rows[group][name] = file.get_slice(key).get_shape()[0] + 2
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} must be a whole file of vocabularies: {error}") from error
    of_lists = rows["behaviour"], rows["impression"]
    of_items, of_requests = ((*rows[o], *rows[f"{o}_bag"]) for o in ("item", "request"))
    check_names(of_items, of_requests, *of_lists, f"{path}: ")
    return rows


def said(path: Path, key: str) -> dict[str, str]:
    """A mapping in the metadata of a saved file, empty where there is none."""
    with safe_open(path, framework="numpy") as file:
        return json.loads((file.metadata() or {}).get(key, "{}"))
