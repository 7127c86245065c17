"""What an adapter makes of a public data set, streamed, and how it is written."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from torchrec_mm.columns.reading import input_errors
from torchrec_mm.columns.text_ids import MAPS
from torchrec_mm.data.contract.feature_settings import FILE
from torchrec_mm.data.contract.settings_file import put_settings
from torchrec_mm.data.logs.id_maps import write_map
from torchrec_mm.data.prepare.prepared import notes_on, read_splits
from torchrec_mm.data.prepare.request_parts import RequestParts
from torchrec_mm.files import new_folder

IS_TEST = "is_test"


@dataclass(frozen=True)
class PublicData:
    """Tables in pieces, in the layout of the data contract.

    items: of one schema, each item once. requests: with a further column ``is_test``, bool.
    no_click: what may be wrong where no label is 1. texts: rows of MAP_SCHEMA, in any order, of the
    ids that were text, by column. settings: what features.yaml says.
    """

    items: Iterable[pa.Table]
    requests: Iterable[pa.Table]
    no_click: str
    texts: Mapping[str, Iterable[pa.RecordBatch | pa.Table]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_public(run_dir: Path, data: PublicData, scratch: Path) -> list[str]:
    """Write ``items/``, ``requests/``, features.yaml and, of ids that are text, ``ids/``.

    Args:
        run_dir: appears whole or not at all. scratch: folder that is there, for rows on their way.

    Returns:
        A line on each thing worth knowing.

    Raises:
        InputError: an empty split, no label 1 at all, two texts of one id; what ``data`` raises.
    """
    with new_folder(run_dir) as folder:
        with (
            RequestParts(folder / "requests" / "train") as train,
            RequestParts(folder / "requests" / "test") as test,
        ):
            for piece in data.requests:
                requests, is_test = piece.drop_columns(IS_TEST), piece[IS_TEST]
                train.add(requests.filter(pc.invert(is_test)))
                test.add(requests.filter(is_test))
        splits = read_splits(folder / "requests", data.no_click)
        _write_items(folder / "items", iter(data.items))
        for name, texts in data.texts.items():
            write_map(folder / "ids" / MAPS[name], name, texts, scratch / "texts")
        given = None
        if data.settings:
            given = scratch / FILE
            given.write_text(yaml.safe_dump({**data.settings}, sort_keys=False), encoding="utf-8")
        put_settings(folder, given)
    return notes_on(splits)


def _write_items(folder: Path, pieces: Iterator[pa.Table]) -> None:
    """A row group a piece: where there are pictures, pieces are of few items."""
    folder.mkdir()
    first = next(pieces)
    with pq.ParquetWriter(folder / "part-0000.parquet", first.schema, compression="zstd") as file:
        for piece in chain([first], pieces):
            file.write_table(piece)


def picture(path: Path) -> bytes | None:
    """The bytes of a file, None where there is none."""
    with input_errors(path):
        return path.read_bytes() if path.is_file() else None
