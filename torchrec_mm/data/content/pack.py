"""`items/` and `searches/` to packed content, which training reads at random.

Both are streamed once, in pieces; in memory are ids, positions and digests of contents, some 200
bytes a row. ``packed.py`` holds the layout. Shape letters: N items, S searches, H hard-negative
slots, n rows of a piece.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from torchrec_mm.columns.files import pictures
from torchrec_mm.columns.numbers import in_one
from torchrec_mm.columns.parquet import INT64, INT64_LIST
from torchrec_mm.columns.parquet_folder import ParquetFolder
from torchrec_mm.data.content.content_columns import MODALITIES, ContentFolder
from torchrec_mm.data.content.content_writer import ContentWriter
from torchrec_mm.data.content.packed import FORMAT, META
from torchrec_mm.data.contract.features import Categorical
from torchrec_mm.data.contract.items import ITEM_ID, attribute_columns, open_items
from torchrec_mm.data.contract.roles import further_columns
from torchrec_mm.data.contract.search_rows import MAX_HARD_NEGATIVES, SearchRows
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, write_json
from torchrec_mm.ids import IdIndex, sort_unique

ITEM_COLUMNS = {"image": "image", "text": "title"}
SEARCH_COLUMNS = {"image": "query_image", "text": "query_text"}
SEARCHED = dict.fromkeys(["search_id", "timestamp", "purchased_item_id"], INT64) | {
    "clicked_item_ids": INT64_LIST
}
OTHER_SEARCH_COLUMNS = ("user_id", "query_text", "query_image", "query_image_path")


def modalities_in(data: Path) -> tuple[str, ...]:
    """The modalities that ``items/`` has a column of; InputError if it has none."""
    names = open_items(data / "items").names
    found = [m for m in MODALITIES if {ITEM_COLUMNS[m], f"{ITEM_COLUMNS[m]}_path"} & {*names}]
    if not found:
        rule = f"{data / 'items'} must have a column image, image_path or title"
        raise InputError(f"{rule}, got {', '.join(names)}")
    return tuple(found)


def pack(data: Path, folder: Path, modalities: Collection[str] | None = None) -> None:
    """Write packed content.

    Pictures in files of their own are named, not copied, and not looked for.

    Args:
        data: folder that holds ``items/`` and ``searches/``.
        folder: to create; appears whole.
        modalities: "image" and/or "text"; None: see ``modalities_in``.

    Raises:
        InputError: missing folder or column, wrong type, unreadable file; duplicate item_id or
            search_id; a purchased or clicked item that is not in items/; a wanted modality that no
            item has, or no search when it is the only one, or a row with none of the two when both
            are wanted; or ``folder`` exists.
    """
    wanted = modalities_in(data) if modalities is None else modalities
    modalities = [modality for modality in MODALITIES if modality in wanted]
    items, attributes, searches = _open(data, modalities)
    with new_folder(folder) as aside:
        writers = {modality: ContentWriter(aside / modality) for modality in modalities}
        item_arrays, item_order = _pack_items(items, attributes, writers)
        search_arrays, search_order = _pack_searches(searches, writers, item_arrays["item_ids"])
        order = np.concatenate([item_order, len(item_order) + search_order])
        digests = {name: writer.finish(order) for name, writer in writers.items()}
        arrays = item_arrays | search_arrays
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        meta = {
            "format": FORMAT,
            "items": len(item_order),
            "searches": len(search_order),
            "modalities": modalities,
            "attributes": list(attributes),
            "hard_slots": arrays["hard"].shape[1],
            "bytes": {name: writer.num_bytes for name, writer in writers.items()},
            "fingerprint": _fingerprint(list(attributes), arrays | digests),
        }
        write_json(aside / META, meta)


def _open(
    data: Path, modalities: Sequence[str]
) -> tuple[ContentFolder, dict[str, Categorical], ContentFolder]:
    """The items, their attributes, and the searches."""
    opened = open_items(data / "items")
    attributes = attribute_columns(opened)
    items = ContentFolder(
        opened,
        ITEM_ID,
        {modality: ITEM_COLUMNS[modality] for modality in modalities},
        {name: column.kind for name, column in attributes.items()},
    )
    opened = ParquetFolder(data / "searches", beside=pictures)
    further_columns([opened], {*SEARCHED, *OTHER_SEARCH_COLUMNS}, [])
    searches = ContentFolder(
        opened, SEARCHED, {modality: SEARCH_COLUMNS[modality] for modality in modalities}
    )
    return items, attributes, searches


def _pack_items(
    items: ContentFolder,
    attributes: Mapping[str, Categorical],
    writers: Mapping[str, ContentWriter],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays of items in ascending id, and that order: (N,) int64."""
    columns, present = [], []
    for table, where in items.chunks():
        of_attributes = [
            column.ids(in_one(table[name]), f"{where} column {name}")
            for name, column in attributes.items()
        ]
        columns.append(np.stack([table["item_id"].to_numpy(), *of_attributes]))
        present.append(_add(items, table, writers))
    together = np.concatenate(columns, axis=1)
    order = sort_unique(together[0], f"{items.folder} column {items.id_column}")
    together = together[:, order]
    items.check_contents(together[0], _in_order(present, order), every=True)
    return {"item_ids": together[0], "attributes": together[1:]}, order


def _pack_searches(
    searches: ContentFolder, writers: Mapping[str, ContentWriter], item_ids: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays of searches in order of time, and that order: (S,) int64."""
    rows, present = SearchRows(IdIndex(item_ids)), []
    for table, where in searches.chunks():
        rows.add(table, where)
        present.append(_add(searches, table, writers))
    arrays = rows.arrays()
    if rows.cut_short:
        logging.getLogger(__name__).warning(
            "clicked_item_ids: %d of %d searches have more than %d items that were not bought, of "
            "which the first %d are used",
            *(rows.cut_short, len(arrays["search_ids"]), MAX_HARD_NEGATIVES, MAX_HARD_NEGATIVES),
        )
    sort_unique(arrays["search_ids"], f"{searches.folder} column {searches.id_column}")
    order = np.lexsort((arrays["search_ids"], arrays["timestamps"]))
    arrays = {name: array[order] for name, array in arrays.items()}
    searches.check_contents(arrays["search_ids"], _in_order(present, order), every=False)
    return arrays, order


def _add(
    source: ContentFolder, table: pa.Table, writers: Mapping[str, ContentWriter]
) -> dict[str, np.ndarray]:
    """Write a piece's contents; (n,) bool by modality, True where present."""
    contents = source.contents(table)
    return {modality: writers[modality].add(*contents[modality]) for modality in writers}


def _in_order(present: list[dict[str, np.ndarray]], order: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in present])[order] for name in present[0]}


def _fingerprint(attributes: Sequence[str], arrays: Mapping[str, np.ndarray]) -> str:
    """Of ids, times, attributes, clicks and contents, in whatever files they came."""
    digest = blake2b("\n".join(attributes).encode(), digest_size=16)
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
