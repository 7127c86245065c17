"""Requests with every id already mapped: once per data set, never again per step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchrec_mm.data.items import ItemCatalogue
from torchrec_mm.data.jagged import Jagged
from torchrec_mm.data.requests import Requests
from torchrec_mm.data.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex
from torchrec_mm.item_vectors.store import ItemVectors


@dataclass(frozen=True)
class EncodedRequests:
    """Requests in terms of dense rows. U counts the distinct items of catalogue and requests.

    requests: the requests themselves, for user ids, labels and times.
    candidates, behaviours: rows into the U items.
    item_ids: (U,) int64, strictly ascending.
    item_rows: table row of each of the U items, (U,) int64 by table; empty without vocabularies.
    request_rows, behaviour_rows: table rows by table, aligned with the requests and with
        ``behaviours.values``; empty without vocabularies.
    vector_rows: (U,) int64 row into ``vectors``, -1 where the item has none.
    vectors: the memory-mapped item vectors, or None.
    """

    requests: Requests
    candidates: Jagged
    behaviours: Jagged
    item_ids: np.ndarray
    item_rows: Mapping[str, np.ndarray]
    request_rows: Mapping[str, np.ndarray]
    behaviour_rows: Mapping[str, np.ndarray]
    vector_rows: np.ndarray
    vectors: ItemVectors | None

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def vector_coverage(self) -> float:
        """Share of candidates and behaviours, counted by occurrence, whose item has a vector."""
        covered = self.vector_rows >= 0
        seen = np.concatenate([self.candidates.values, self.behaviours.values])
        return float(covered[seen].mean())


def encode_requests(
    requests: Requests,
    items: ItemCatalogue,
    where: Path,
    vocabularies: Vocabularies | None = None,
    vectors: ItemVectors | None = None,
) -> EncodedRequests:
    """Map every id of ``requests`` to rows.

    A behaviour that is not in the catalogue is kept: its attributes are out of vocabulary.

    Raises:
        InputError: a candidate that is not in the catalogue, or a feature column that training
            had and these requests lack; ``where`` names the folder.
    """
    _check_candidates(requests, items, where)
    item_ids = np.union1d(items.item_ids, requests.behaviours.values)
    index = IdIndex(item_ids)
    return EncodedRequests(
        requests=requests,
        candidates=Jagged(index.rows(requests.candidates.values), requests.candidates.offsets),
        behaviours=Jagged(index.rows(requests.behaviours.values), requests.behaviours.offsets),
        item_ids=item_ids,
        item_rows=_item_rows(item_ids, items, vocabularies, where) if vocabularies else {},
        request_rows=_request_rows(requests, vocabularies, where) if vocabularies else {},
        behaviour_rows=_behaviour_rows(requests, vocabularies, where) if vocabularies else {},
        vector_rows=(vectors.rows(item_ids) if vectors else np.full(len(item_ids), -1)),
        vectors=vectors,
    )


def _check_candidates(requests: Requests, items: ItemCatalogue, where: Path) -> None:
    unknown = items.index.rows(requests.candidates.values) < 0
    if unknown.any():
        raise InputError(
            f"{where} column candidate_item_ids must hold ids of items/ only, got "
            f"{requests.candidates.values[np.argmax(unknown)]}"
        )


def _item_rows(
    item_ids: np.ndarray, items: ItemCatalogue, vocabularies: Vocabularies, where: Path
) -> dict[str, np.ndarray]:
    known = items.index.rows(item_ids)
    rows = {}
    for name, vocabulary in vocabularies.item.items():
        if name == "item_id":
            rows[name] = vocabulary.rows(item_ids)
            continue
        values = _column(items.attributes, name, where.parent.parent / "items")
        rows[name] = np.where(known >= 0, vocabulary.rows(values)[known], 0)
    return rows


def _request_rows(
    requests: Requests, vocabularies: Vocabularies, where: Path
) -> dict[str, np.ndarray]:
    columns = {"user_id": requests.user_ids, **requests.features}
    return {
        name: vocabulary.rows(_column(columns, name, where))
        for name, vocabulary in vocabularies.request.items()
    }


def _behaviour_rows(
    requests: Requests, vocabularies: Vocabularies, where: Path
) -> dict[str, np.ndarray]:
    return {
        name: vocabulary.rows(_column(requests.behaviour_attributes, name, where))
        for name, vocabulary in vocabularies.behaviour.items()
    }


def _column(columns: Mapping[str, np.ndarray], name: str, where: Path) -> np.ndarray:
    if name not in columns:
        raise InputError(f"{where} must have the column {name} that the ranker was trained with")
    return columns[name]
