"""TAOBAO-MM as requests: one a user and split; a history is written once, not once a sample."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.ahead import in_order
from torchrec_mm.columns.chunks import read_chunks, read_groups
from torchrec_mm.columns.jagged import Jagged
from torchrec_mm.columns.numbers import to_numpy
from torchrec_mm.columns.parquet import check_columns
from torchrec_mm.columns.parquet_folder import check_types
from torchrec_mm.columns.reading import read_footer
from torchrec_mm.data.contract.features import Feature
from torchrec_mm.data.contract.items import ItemCatalogue
from torchrec_mm.data.contract.requests import Requests, check_same_lengths
from torchrec_mm.data.encode.taobao_mm_files import (
    CATEGORY,
    ITEM,
    ITEM_ATTRIBUTES,
    ITEM_COLUMNS,
    MISSING,
    PAST_CATEGORIES,
    PAST_ITEMS,
    PROFILE,
    SAMPLE_COLUMNS,
    USER,
    USER_COLUMNS,
    table_files,
)
from torchrec_mm.data.encode.taobao_mm_samples import UserSamples
from torchrec_mm.errors import InputError
from torchrec_mm.ids import IdIndex, sort_unique

EXTRA_USERS = 10_000


class TaobaoMM:
    """The published tables as a source of requests, in the order of ``user_features``.

    A user with samples but no features comes after those, with an empty history and features not
    known; one with features but no samples is left out. Past items without an id are left out.
    ``notes`` counts all three, over all splits.
    """

    request_features: Sequence[str] = ("user_id", *PROFILE)
    behaviour_features: Sequence[str] = ()
    attributes_of_behaviours: Sequence[str] = (ITEM_ATTRIBUTES[CATEGORY],)
    behaviour_item_features: Sequence[str] = ("item_id", ITEM_ATTRIBUTES[CATEGORY])
    missing: int | None = MISSING
    impression_features: Sequence[str] = ()
    request_numbers: Sequence[str] = ()
    impression_numbers: Sequence[str] = ()
    request_bags: Sequence[str] = ()
    sequences: Sequence[str] = ()
    further: Mapping[str, Feature] = {}

    def __init__(
        self, data: Path, splits: Sequence[str], max_behaviours: int, scratch: Path
    ) -> None:
        """Read the items, the samples and who has features.

        Args:
            data: folder of the tables.
            splits: of "train" and "test".
            max_behaviours: the newest behaviours kept of each request.
            scratch: empty folder for 9 bytes a sample, the caller's to remove.

        Raises:
            InputError: missing table or column, wrong type, an item or a split's user twice, a
                label that is not one-hot, a split without samples.
        """
        self.splits = splits
        self.max_behaviours = max_behaviours
        self.files = {s: _checked(data, f"{s}_user_features", USER_COLUMNS) for s in splits}
        self.items = _read_items(_checked(data, "item_features", ITEM_COLUMNS))
        self.samples: dict[str, UserSamples] = {}
        self.featured: dict[str, np.ndarray] = {}
        self.notes = {"users_without_features": 0, "users_without_samples": 0}
        for split in splits:
            self._open(data, split, scratch)

    def _open(self, data: Path, split: str, scratch: Path) -> None:
        (scratch / split).mkdir()
        files = _checked(data, f"{split}_samples", SAMPLE_COLUMNS)
        samples = UserSamples(files, scratch / split)
        if len(samples) == 0:
            raise InputError(f"{files[0]} must hold at least one sample, got 0")
        featured = _read_users(self.files[split])
        both = len(np.intersect1d(samples.users, featured, assume_unique=True))
        self.notes["users_without_features"] += len(samples.users) - both
        self.notes["users_without_samples"] += len(featured) - both
        self.samples[split], self.featured[split] = samples, featured

    def num_rows(self, split: str) -> int:
        return len(self.samples[split].users)

    def chunks(self, split: str) -> Iterator[Requests]:
        """The split's requests, checked."""
        samples = self.samples[split]
        groups = read_groups(self.files[split], list(USER_COLUMNS))
        yield from in_order(self._of_users(chunks, samples) for chunks in groups)
        rest = np.setdiff1d(samples.users, self.featured[split], assume_unique=True)
        for begin in range(0, len(rest), EXTRA_USERS):
            users = rest[begin : begin + EXTRA_USERS]
            yield self._requests(_without_features(users), samples, "samples")

    def bags_of_items(self) -> Iterator[tuple[np.ndarray, dict[str, Jagged]]]:
        return iter(())

    def _of_users(
        self, chunks: Iterator[tuple[pa.Table, str]], samples: UserSamples
    ) -> Iterator[Requests]:
        for table, where in chunks:
            table = check_columns(table, where, USER_COLUMNS)
            sampled = IdIndex(samples.users).rows(to_numpy(table[USER])) >= 0
            if not sampled.all():
                table = table.filter(pa.array(sampled))
            if table.num_rows:
                yield self._requests(table, samples, where)

    def _requests(self, table: pa.Table, samples: UserSamples, where: str) -> Requests:
        users = to_numpy(table[USER])
        items = Jagged.from_arrow(table[PAST_ITEMS], f"{where} column {PAST_ITEMS}")
        categories = Jagged.from_arrow(table[PAST_CATEGORIES], f"{where} column {PAST_CATEGORIES}")
        check_same_lengths(where, PAST_CATEGORIES, categories, PAST_ITEMS, items)
        kept, offsets = _newest_known(items, self.max_behaviours)
        candidates, labels = samples.of(users)
        return Requests(
            user_ids=users,
            timestamps=None,
            behaviours=Jagged(items.values[kept], offsets),
            candidates=candidates,
            labels=labels,
            features={name: to_numpy(table[name]) for name in PROFILE},
            behaviour_attributes={ITEM_ATTRIBUTES[CATEGORY]: categories.values[kept]},
        )


def _checked(data: Path, name: str, columns: Mapping[str, pa.DataType]) -> list[Path]:
    """The files of a table, each with columns of the promised types."""
    files = table_files(data, name)
    check_types(map(read_footer, files), columns)
    return files


def _newest_known(items: Jagged, most: int) -> tuple[np.ndarray | slice, np.ndarray]:
    """Where the last ``most`` items of each list are whose id is known, and their offsets."""
    known = items.values != MISSING
    if known.all():
        if items.lengths.max(initial=0) <= most:
            return slice(None), items.offsets
        newest, positions = items.newest(most)
        return positions, newest.offsets
    positions = np.flatnonzero(known)
    newest = Jagged(positions, np.searchsorted(positions, items.offsets)).newest(most)[0]
    return newest.values, newest.offsets


def _without_features(users: np.ndarray) -> pa.Table:
    none = pa.array([[]] * len(users), USER_COLUMNS[PAST_ITEMS])
    unknown = np.full(len(users), MISSING)
    columns = {USER: users} | dict.fromkeys(PROFILE, unknown)
    return pa.table(columns | {PAST_ITEMS: none, PAST_CATEGORIES: none})


def _read_users(files: list[Path]) -> np.ndarray:
    """(N,) int64 ids of the users with features, ascending."""
    ids = [np.empty(0, np.int64)]
    for file in files:
        for table, where in read_chunks(file, [USER]):
            ids.append(to_numpy(check_columns(table, where, {USER: USER_COLUMNS[USER]})[USER]))
    users = np.concatenate(ids)
    return users[sort_unique(users, f"{files[0]} column {USER}")]


def _read_items(files: list[Path]) -> ItemCatalogue:
    tables = [
        check_columns(table, where, ITEM_COLUMNS)
        for file in files
        for table, where in read_chunks(file, list(ITEM_COLUMNS))
    ]
    if not tables:
        raise InputError(f"{files[0]} must hold at least one row, got 0")
    table = pa.concat_tables(tables)
    item_ids = to_numpy(table[ITEM])
    order = sort_unique(item_ids, f"{files[0]} column {ITEM}")
    attributes = {name: to_numpy(table[column]) for column, name in ITEM_ATTRIBUTES.items()}
    return ItemCatalogue(
        item_ids[order], None, {name: values[order] for name, values in attributes.items()}
    )
