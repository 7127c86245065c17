"""MIND, news: impressions that users of Microsoft News were shown, and which they clicked.

Wu et al., ACL 2020; format:
https://github.com/msnews/msnews.github.io/blob/master/assets/doc/introduction.md.
Tab separated, no header, no quotes. ``behaviors.tsv``: impression id, user id, time as
``11/11/2019 9:05:58 AM``, history of clicks (news ids, by time), impressions like ``N55689-1
N35729-0``, 1 for a click, their order shuffled. ``news.tsv``: id, category, subcategory, title,
abstract, url, entities of the title, entities of the abstract.

Reads the folders ``*train`` and ``*dev`` as they are unpacked: the published splits. A row is a
request, its history the behaviours. An item's title is its title and abstract; its category and
subcategory are attributes. Times have no zone and are taken for UTC.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from torchrec_mm.columns.jagged import Jagged, list_array, values_and_offsets
from torchrec_mm.columns.parquet import INT64, STRING
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.columns.text_ids import MAP_SCHEMA, hash_texts
from torchrec_mm.data.public.public_data import IS_TEST, PublicData
from torchrec_mm.data.public.tables import find_one
from torchrec_mm.errors import InputError

BEHAVIORS = ("impression_id", "user_id", "time", "history", "impressions")
NEWS = (
    *("news_id", "category", "subcategory", "title", "abstract", "url"),
    *("title_entities", "abstract_entities"),
)
SPLITS = {"*train": False, "*dev": True}  # whether it is for testing
TIME = "%m/%d/%Y %I:%M:%S %p"
IMPRESSION = "^(?P<item>.+)-(?P<label>[01])$"
INT8 = pa.int8()
BLOCK_BYTES = 16 << 20


def read_mind(folder: Path, *, behaviours: int) -> PublicData:
    """``behaviours``: of a request at most, the latest.

    Raises:
        InputError: no such folders or files, lines of other columns, a time or an impression that
            is not as above, news that no news.tsv has.
    """
    files = {find_one(folder, f"{split}/behaviors.tsv"): test for split, test in SPLITS.items()}
    news = [find_one(folder, f"{split}/news.tsv") for split in SPLITS]
    known = pc.unique(
        pa.chunked_array([batch["news_id"] for file in news for batch in _lines(file, NEWS)])
    )
    return PublicData(
        _items(news),
        _requests(files, known, behaviours),
        no_click=f"no impression in {folder} ends with -1",
        texts={
            "item_id": _texts(news, NEWS, "news_id"),
            "user_id": _texts([*files], BEHAVIORS, "user_id"),
        },
    )


def _lines(file: Path, names: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    with input_errors(file, f"must be lines of {', '.join(names)}, divided by tabs"):
        yield from pa_csv.open_csv(
            file,
            pa_csv.ReadOptions(column_names=list(names), block_size=BLOCK_BYTES),
            pa_csv.ParseOptions(delimiter="\t", quote_char=False),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(names, STRING)),
        )


def _items(files: list[Path]) -> Iterator[pa.Table]:
    """News of all splits, the first of each id."""
    seen = pa.array([], STRING)
    for file in files:
        for batch in _lines(file, NEWS):
            table = pa.Table.from_batches([batch])
            table = table.filter(pc.invert(pc.is_in(table["news_id"], seen)))
            seen = pa.concat_arrays([seen, table["news_id"].combine_chunks()])
            abstracts = pc.if_else(pc.equal(table["abstract"], ""), None, table["abstract"])
            titles = pc.binary_join_element_wise(
                table["title"], abstracts, ". ", null_handling="skip"
            )
            columns = {"item_id": hash_texts(table["news_id"]), "title": titles}
            yield pa.table(columns | {name: table[name] for name in ("category", "subcategory")})


def _requests(files: dict[Path, bool], known: pa.Array, behaviours: int) -> Iterator[pa.Table]:
    for file, is_test in files.items():
        done = 0
        for batch in _lines(file, BEHAVIORS):
            where = f"{file} from line {done + 1}"
            done += batch.num_rows
            history, (shown, labels) = _words(batch["history"]), _impressions(batch, where)
            for values in (history.flatten(), shown.flatten()):
                unknown = values.filter(pc.invert(pc.is_in(values, known)))
                if len(unknown):
                    raise InputError(f"{where} must name news of a news.tsv, got {unknown[0]}")
            columns = {
                "user_id": hash_texts(batch["user_id"]),
                "timestamp": _seconds(batch["time"], where),
                "behaviour_item_ids": _newest(_numbered(history), behaviours),
                "candidate_item_ids": _numbered(shown),
                "labels": labels,
            }
            yield pa.table(columns | {IS_TEST: pa.array([is_test] * batch.num_rows)})


def _texts(files: list[Path], names: tuple[str, ...], column: str) -> Iterator[pa.Table]:
    """Rows of MAP_SCHEMA of a column."""
    for file in files:
        for batch in _lines(file, names):
            texts = pc.unique(batch[column])
            yield pa.table([hash_texts(texts), texts], MAP_SCHEMA)


def _numbered(lists: pa.ListArray) -> pa.ListArray:
    offsets = pc.subtract(lists.offsets, lists.offsets[0])
    return pa.ListArray.from_arrays(offsets, hash_texts(lists.flatten()))


def _words(texts: pa.Array) -> pa.ListArray:
    """Words between spaces; an empty text has none."""
    trimmed = pc.utf8_trim_whitespace(texts)
    words = pc.split_pattern(trimmed, " ")
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar([], words.type), words)


def _newest(lists: pa.ListArray, most: int) -> pa.ListArray:
    values, offsets = values_and_offsets(pa.chunked_array([lists]))
    kept = Jagged(np.arange(len(values)), offsets).newest(most)[0]
    places = list_array(kept.values, kept.lengths)
    return pa.ListArray.from_arrays(places.offsets, values.take(places.values))


def _impressions(batch: pa.RecordBatch, where: str) -> tuple[pa.ListArray, pa.ListArray]:
    """Item ids and labels of each row."""
    words = _words(batch["impressions"])
    parts = pc.extract_regex(words.flatten(), IMPRESSION)
    if parts.null_count:
        wrong = words.flatten().filter(parts.is_null())[0]
        raise InputError(f"{where} must hold impressions like N55689-1 or N35729-0, got {wrong}")
    offsets = pc.subtract(words.offsets, words.offsets[0])
    labels = pc.struct_field(parts, "label").cast(INT8)
    items = pc.struct_field(parts, "item")
    return tuple(pa.ListArray.from_arrays(offsets, values) for values in (items, labels))


def _seconds(texts: pa.Array, where: str) -> pa.Array:
    times = pc.strptime(texts, TIME, "s", error_is_null=True)
    if times.null_count:
        wrong = texts.filter(times.is_null())[0]
        raise InputError(f"{where} must hold times like 11/11/2019 9:05:58 AM, got {wrong}")
    return times.cast(INT64)
