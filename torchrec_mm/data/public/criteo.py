"""Criteo's display advertising: 13 numbers, 26 categories and a click, without users or items.

https://www.kaggle.com/c/criteo-display-ad-challenge and, of one form, the 24 days of
https://ailab.criteo.com/download-criteo-1tb-click-logs-dataset. Lines divided by tabs, no header:
label, 13 whole numbers, 26 categories of 32 bits in hexadecimal; a missing value is an empty field.
Rows are in the order of time, which itself is not given. ``train.txt`` or ``day_0`` to ``day_23``,
packed or not.

A row is a request of one candidate. There is one user and one item, so GAUC is AUC, and the method
``bias`` knows the click rate alone. The last ``test_share`` of the rows are for testing. A category
is the number that its text is in hexadecimal; in features.yaml those that training shows less than
``MIN_COUNT`` times share a row, and log(1 + x) takes the place of numbers never below 0.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from torchrec_mm.columns.jagged import list_array
from torchrec_mm.columns.parquet import FLOAT64, INT64, STRING
from torchrec_mm.columns.reading import input_errors
from torchrec_mm.data.public.public_data import IS_TEST, PublicData
from torchrec_mm.data.public.tables import find
from torchrec_mm.errors import InputError

NUMBERS = tuple(f"I{place}" for place in range(1, 14))
CATEGORIES = tuple(f"C{place}" for place in range(1, 27))
HEX = "^[0-9a-f]{1,8}$"
MIN_COUNT = 10
BLOCK_BYTES = 16 << 20
USER, ITEM = 0, 0  # of all rows


def read_criteo(folder: Path, *, test_share: float) -> PublicData:
    """The files are read twice: once to count rows and find the least of each number.

    Raises:
        InputError: no such file, a line of another form, a label that is neither 0 nor 1.
    """
    files = find(folder, "train.txt*", "day_*")
    files.sort(key=lambda file: (len(file.name), file.name))  # day_10 comes after day_9
    rows, least = 0, np.full(len(NUMBERS), np.inf)
    for batch, _ in _lines(files):
        rows += batch.num_rows
        found = [pc.min(batch[name]).as_py() for name in NUMBERS]
        least = np.minimum(least, [np.inf if value is None else value for value in found])
    num_train = int(np.ceil(rows * (1 - test_share) - 1e-9))
    settings: dict[str, dict[str, Any]] = {
        name: {"transform": "log1p"}
        for name, value in zip(NUMBERS, least.tolist(), strict=True)
        if value >= 0
    }
    settings |= {name: {"min_count": MIN_COUNT} for name in CATEGORIES}
    return PublicData(
        [pa.table({"item_id": pa.array([ITEM], INT64)})],
        _requests(files, num_train),
        no_click=f"every label in {folder} is 0",
        settings=settings,
    )


def _lines(files: list[Path]) -> Iterator[tuple[pa.RecordBatch, str]]:
    """Label and numbers as numbers, categories as text, null where a field is empty."""
    types = {"label": INT64, **dict.fromkeys(NUMBERS, FLOAT64), **dict.fromkeys(CATEGORIES, STRING)}
    for file in files:
        done = 0
        with input_errors(file, "must be lines of label, 13 numbers and 26 categories"):
            for batch in pa_csv.open_csv(
                pa.input_stream(str(file), compression="detect"),
                pa_csv.ReadOptions(column_names=list(types), block_size=BLOCK_BYTES),
                pa_csv.ParseOptions(delimiter="\t", quote_char=False),
                pa_csv.ConvertOptions(
                    column_types=types, null_values=[""], strings_can_be_null=True
                ),
            ):
                yield batch, f"{file} from line {done + 1}"
                done += batch.num_rows


def _requests(files: list[Path], num_train: int) -> Iterator[pa.Table]:
    done = 0
    for batch, where in _lines(files):
        count = batch.num_rows
        labels = batch["label"]
        if labels.null_count or not pc.all(pc.is_in(labels, pa.array([0, 1]))).as_py():
            raise InputError(f"{where} must begin with a label of 0 or 1 in every line")
        items, one, none = np.full(count, ITEM), np.ones(count, np.int64), np.zeros(count, np.int64)
        columns = {
            "user_id": pa.array(np.full(count, USER)),
            "behaviour_item_ids": list_array(items[:0], none),
            "candidate_item_ids": list_array(items, one),
            "labels": list_array(labels.to_numpy().astype(np.int8), one),
            **{name: batch[name] for name in NUMBERS},
            **{name: _of_hex(batch[name], f"{where} column {name}") for name in CATEGORIES},
            IS_TEST: pa.array(np.arange(done, done + count) >= num_train),
        }
        done += count
        yield pa.table(columns)


def _of_hex(texts: pa.Array, where: str) -> pa.Array:
    """Numbers that texts write in hexadecimal, each different text once."""
    encoded = texts.dictionary_encode()
    wrong = encoded.dictionary.filter(pc.invert(pc.match_substring_regex(encoded.dictionary, HEX)))
    if len(wrong):
        raise InputError(f"{where} must hold up to 8 digits of 0-9 and a-f, got {wrong[0]}")
    values = pa.array([int(text, 16) for text in encoded.dictionary.to_pylist()], INT64)
    return values.take(encoded.indices)
