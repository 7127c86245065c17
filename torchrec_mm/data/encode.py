"""Requests to an encoded data set: every id mapped to its row once, never again in training.

    meta.json                     names, sizes, unseen ids, fingerprint of the vocabularies
    vocabularies.safetensors      table rows by id
    item_frequency.safetensors    training impressions by item
    items/                        ids, table rows and creation times of all items: the universe
    requests/<split>/             Parquet: table rows by feature, items as rows of the universe

Two passes: one counts the ids, one maps them. Memory grows with the number of distinct ids, not
with that of requests.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from torchrec_mm.data.encode_census import TRAIN, Census, take_census
from torchrec_mm.data.encode_learn import learn
from torchrec_mm.data.encode_mapping import Mapper
from torchrec_mm.data.encode_source import RequestFolders, RequestSource
from torchrec_mm.data.encode_universe import Universe
from torchrec_mm.data.encode_writer import SplitWriter
from torchrec_mm.data.frequency import ItemFrequency
from torchrec_mm.data.vocabulary import Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, refuse_existing, write_json

FORMAT = 1


def encode_folder(
    data: Path,
    splits: Sequence[str],
    out: Path,
    *,
    max_behaviours: int,
    min_count: int = 1,
    vocabularies: Vocabularies | None = None,
    frequency: ItemFrequency | None = None,
) -> None:
    """Encode ``items/`` and ``requests/<split>`` of the folder ``data``.

    Args:
        data: folder in the layout of the data contract.
        splits: folders of ``requests/``, "train" among them unless vocabularies are given.
        out: the encoded data set to create, whole or not at all.
        max_behaviours: the newest behaviours kept of each request.
        min_count: training occurrences from which an item has a row of its own.
        vocabularies, frequency: what training learned; given, nothing is learned here.

    Raises:
        InputError: ``out`` exists, or anything that breaks the contract: file and rule named.
    """
    refuse_existing(out)
    source = RequestFolders(data, splits, max_behaviours)
    encode(
        source,
        out,
        max_behaviours=max_behaviours,
        min_count=min_count,
        vocabularies=vocabularies,
        frequency=frequency,
    )


def encode(
    source: RequestSource,
    out: Path,
    *,
    max_behaviours: int,
    min_count: int = 1,
    vocabularies: Vocabularies | None = None,
    frequency: ItemFrequency | None = None,
) -> None:
    """Encode any source; see ``encode_folder``."""
    if vocabularies is None and TRAIN not in source.splits:
        raise InputError(f"splits must hold {TRAIN}, got {', '.join(source.splits)}")
    census = take_census(source)
    universe = Universe.of(census, source.items, source.missing)
    if vocabularies is None:
        vocabularies, frequency = learn(source, census, universe, min_count), census.frequency
    mapper = Mapper(source, universe, vocabularies)
    with new_folder(out) as folder:
        sizes = {
            split: _write_split(source, census, mapper, split, folder) for split in source.splits
        }
        universe.save(folder / "items", mapper.item_rows)
        vocabularies.save(folder / "vocabularies.safetensors")
        if frequency is not None:
            frequency.save(folder / "item_frequency.safetensors")
        write_json(
            folder / "meta.json",
            {
                "format": FORMAT,
                "vocabulary": vocabularies.fingerprint,
                "request_features": list(vocabularies.request),
                "item_features": list(vocabularies.item),
                "behaviour_item_features": mapper.behaviour_item_features,
                "behaviour_features": list(vocabularies.behaviour),
                "max_behaviours": max_behaviours,
                "unseen": {name: int(count) for name, count in mapper.unseen.items()},
                "attribute_disagreements": {n: int(c) for n, c in mapper.disagreements.items()},
                "notes": dict(source.notes),
                "splits": sizes,
            },
        )


def _write_split(
    source: RequestSource, census: Census, mapper: Mapper, split: str, folder: Path
) -> dict[str, Any]:
    """Write ``requests/<split>``; returns its sizes."""
    sizes = Counter(requests=0, impressions=0, behaviours=0, clicks=0)
    rows = source.num_rows(split)
    with (
        SplitWriter(folder / "requests" / split) as writer,
        tqdm(total=rows, desc=f"encode {split}", unit="request", disable=None) as bar,
    ):
        for requests, where in source.chunks(split):
            table = mapper.table(requests, where, with_time=census.has_time[split])
            lengths = np.stack([requests.candidates.lengths, requests.behaviours.lengths], axis=1)
            writer.add(table, lengths.astype(np.int32))
            sizes["requests"] += len(requests)
            sizes["impressions"] += requests.num_impressions
            sizes["behaviours"] += len(requests.behaviours.values)
            sizes["clicks"] += int(requests.labels.sum())
            bar.update(len(requests))
    return dict(sizes)
