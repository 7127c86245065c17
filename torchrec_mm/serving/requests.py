"""Requests as they arrive to what the network's batches are made of.

The same steps as an encoded data set takes through files, in memory: ids to rows of tables, numbers
to the network's range, items to numbers of their own.

Shape letters: R requests, n distinct items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.data.contract.request_columns import RequestColumns
from torchrec_mm.data.contract.requests import Requests
from torchrec_mm.data.encode.mapping import TableRows
from torchrec_mm.data.encode.source import known_columns
from torchrec_mm.data.encoded.arrays import EncodedItems, RequestArrays
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.data.stream.batches import USER_ID
from torchrec_mm.serving.catalogue import Catalogue


@dataclass(frozen=True)
class RequestEncoder:
    """Encodes requests for one ranker.

    columns: those of a request. catalogue: what is known of items. max_behaviours: the newest that
    are kept of each request.
    """

    columns: RequestColumns
    catalogue: Catalogue
    vocabularies: Vocabularies
    rows: dict[str, TableRows]
    max_behaviours: int

    @classmethod
    def of(
        cls, vocabularies: Vocabularies, catalogue: Catalogue, max_behaviours: int
    ) -> "RequestEncoder":
        columns = replace(known_columns(vocabularies), has_labels=False)
        groups = (
            vocabularies.request,
            vocabularies.behaviour,
            vocabularies.impression,
            vocabularies.request_bag,
        )
        rows = {name: TableRows(each) for group in groups for name, each in group.items()}
        return cls(columns, catalogue, vocabularies, rows, max_behaviours)

    def __call__(self, requests: Requests) -> tuple[RequestArrays, EncodedItems]:
        """R requests, R > 0, and the n items that they are about, which their item numbers mean."""
        of_requests = {USER_ID: requests.user_ids, **requests.features}
        lists = [requests.candidates, requests.behaviours]
        lists += [requests.sequences[event] for event in self.vocabularies.sequences]
        item_ids, numbers = np.unique(
            np.concatenate([each.values for each in lists]), return_inverse=True
        )
        parts = np.split(numbers.astype(np.int32), np.cumsum([len(of.values) for of in lists])[:-1])
        candidates, behaviours, *further = (
            Jagged(part, each.offsets) for part, each in zip(parts, lists, strict=True)
        )
        vocabularies = self.vocabularies
        arrays = RequestArrays(
            rows=np.arange(len(requests)),
            user_ids=requests.user_ids,
            timestamps=requests.timestamps,
            request_rows={n: self.rows[n](of_requests[n]) for n in vocabularies.request},
            candidates=candidates,
            labels=requests.labels,
            behaviours=behaviours,
            behaviour_rows={
                n: self.rows[n](requests.behaviour_attributes[n]) for n in vocabularies.behaviour
            },
            impression_rows={
                n: self.rows[n](requests.impression_features[n]) for n in vocabularies.impression
            },
            request_numbers=self._normalised("request", requests.numbers),
            impression_numbers=self._normalised("impression", requests.impression_numbers),
            weights=requests.weights,
            request_bags={
                n: Jagged(self.rows[n](requests.bags[n].values), requests.bags[n].offsets)
                for n in vocabularies.request_bag
            },
            sequences=dict(zip(vocabularies.sequences, further, strict=True)),
        )
        return arrays, self.catalogue.of(item_ids)

    def _normalised(self, group: str, values: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """(n, P) float32 of the numbers of a group, None without any."""
        normalisers = self.vocabularies.numbers_of(group)
        if not normalisers:
            return None
        columns = [normalise(values[name]) for name, normalise in normalisers.items()]
        return np.stack(columns, axis=1)


def together(parts: Sequence[Requests]) -> Requests:
    """All requests of all parts, at least one, as one; without times, which no ranker reads."""
    if len(parts) == 1:
        return parts[0]

    def arrays(name: str) -> dict[str, np.ndarray]:
        of_parts = [getattr(part, name) for part in parts]
        return {key: np.concatenate([of[key] for of in of_parts]) for key in of_parts[0]}

    def lists(name: str) -> dict[str, Jagged]:
        of_parts = [getattr(part, name) for part in parts]
        return {key: Jagged.concatenate([of[key] for of in of_parts]) for key in of_parts[0]}

    return Requests(
        user_ids=np.concatenate([part.user_ids for part in parts]),
        timestamps=None,
        behaviours=Jagged.concatenate([part.behaviours for part in parts]),
        candidates=Jagged.concatenate([part.candidates for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        features=arrays("features"),
        behaviour_attributes=arrays("behaviour_attributes"),
        impression_features=arrays("impression_features"),
        numbers=arrays("numbers"),
        impression_numbers=arrays("impression_numbers"),
        weights=_weights(parts),
        bags=lists("bags"),
        sequences=lists("sequences"),
    )


def _weights(parts: Sequence[Requests]) -> np.ndarray | None:
    """Of all impressions, 1 in a part that has none; None where no part has any."""
    if all(part.weights is None for part in parts):
        return None
    ones = [np.ones(part.num_impressions, np.float32) for part in parts]
    each = zip(parts, ones, strict=True)
    return np.concatenate([one if part.weights is None else part.weights for part, one in each])
