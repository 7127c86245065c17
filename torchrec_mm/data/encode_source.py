"""Where requests to encode come from, in pieces that fit in memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torchrec_mm.data.chunks import count_rows, read_chunks
from torchrec_mm.data.items import ItemCatalogue, read_catalogue
from torchrec_mm.data.parquet import open_dataset, parquet_files
from torchrec_mm.data.requests import NAMED, RequestColumns, Requests, parse_requests
from torchrec_mm.data.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.tables.names import refuse_lookalikes

TRAIN = "train"


class RequestSource(Protocol):
    """Requests by split, which may be read several times, and the items they are about.

    items: the catalogue. request_features: ``user_id`` and the features of users and contexts.
    behaviour_features: the attributes of behaviours. told: attributes of the catalogue that
    behaviours tell of their items. behaviour_item_features: the item features that behaviours
    have. missing: the id that stands for "not known" in any feature, if there is one. notes:
    counts for the reader of ``meta.json``.
    """

    splits: Sequence[str]
    items: ItemCatalogue
    request_features: Sequence[str]
    behaviour_features: Sequence[str]
    told: Sequence[str]
    behaviour_item_features: Sequence[str]
    missing: int | None
    notes: Mapping[str, int]

    def num_rows(self, split: str) -> int:
        """How many requests ``chunks`` goes through, for the progress bar."""

    def chunks(self, split: str) -> Iterator[Requests]:
        """The split's requests in order, checked, in pieces that fit in memory."""


class RequestFolders:
    """Folders of requests by split, and the folder ``items/``."""

    told = ()
    missing = None
    notes: Mapping[str, int] = {}

    def __init__(
        self,
        folders: Mapping[str, Path],
        items: Path,
        max_behaviours: int,
        known: Vocabularies | None = None,
    ) -> None:
        """Read the catalogue, and of the requests the columns' names.

        Args:
            folders: of requests, by split. items: in the layout of ``items/``.
            max_behaviours: the newest behaviours kept of each request.
            known: of a model that scores the requests: only what it needs is read, labels are not.

        Raises:
            InputError: a missing, empty or unreadable folder, files of other columns, a
                behaviour attribute called like a column of ``items/``.
        """
        self.splits = list(folders)
        self.max_behaviours = max_behaviours
        self.folders = folders
        datasets = {folder: open_dataset(folder) for folder in self.folders.values()}
        for folder, dataset in datasets.items():
            refuse_lookalikes(folder, dataset.schema.names, NAMED)
            if dataset.count_rows() == 0:
                raise InputError(f"{folder} must hold at least one row, got 0")
        self.columns = RequestColumns.of(next(iter(datasets.values())).schema)
        if known is not None:
            self.columns = self.columns.without_labels({*known.request, *known.behaviour})
        self.request_features = ("user_id", *self.columns.features)
        self.behaviour_features = self.columns.behaviour_attributes
        self.items = read_catalogue(items)
        for name in {"item_id", *self.items.attributes} & {*self.behaviour_features}:
            raise InputError(
                f"behaviour attribute {name} must not share its name with a column of items/"
            )
        self.behaviour_item_features = ("item_id", *self.items.attributes)

    def num_rows(self, split: str) -> int:
        return sum(map(count_rows, parquet_files(self.folders[split])))

    def chunks(self, split: str) -> Iterator[Requests]:
        """The requests in order of file names; a candidate outside ``items/`` is refused."""
        index = self.items.index
        names = open_dataset(self.folders[split]).schema.names
        read = [name for name in self.columns.read if name in names]
        for file in parquet_files(self.folders[split]):
            for table, where in read_chunks(file, read):
                requests = parse_requests(table, where, self.columns, self.max_behaviours)
                unknown = index.rows(requests.candidates.values) < 0
                if unknown.any():
                    raise InputError(
                        f"{where} column candidate_item_ids must hold ids of items/ only, got "
                        f"{requests.candidates.values[unknown][0]}"
                    )
                yield requests
