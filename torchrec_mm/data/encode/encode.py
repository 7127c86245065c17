"""Requests to an encoded data set: every id mapped to its row once, never again in training.

    meta.json                     names, sizes, unseen ids, fingerprint of the vocabularies
    vocabularies.safetensors      table rows by id, texts by id, normalisers of numbers
    item_frequency.safetensors    training impressions by item
    items/                        ids, table rows, numbers, bags, creation times of all items
    requests/<split>/             Parquet: table rows, numbers, bags, items as rows of items/

Two passes: one over the source, which numbers the ids (number.py) and leaves the numbers on disk,
and one over these, which maps them (mapping.py, writer.py). Memory grows with the number of
distinct ids, not with that of requests; on the disk of the data set as much again is needed as it
will have.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from torchrec_mm.data.contract.feature_names import check_names
from torchrec_mm.data.contract.features import text_ids_of
from torchrec_mm.data.contract.shared_tables import shared_tables
from torchrec_mm.data.encode.all_items import AllItems
from torchrec_mm.data.encode.item_bags import ItemBags
from torchrec_mm.data.encode.learn import (
    frequency_of,
    learn_features,
    learn_item_bags,
    learn_items,
    learn_numbers,
    learn_shared,
)
from torchrec_mm.data.encode.mapping import Mapper, check_features
from torchrec_mm.data.encode.number import Numbering
from torchrec_mm.data.encode.source import NOTHING, TRAIN, RequestFolders, RequestSource
from torchrec_mm.data.encode.writer import write_split
from torchrec_mm.data.encoded.encoded import FORMAT
from torchrec_mm.data.encoded.frequency import ItemFrequency
from torchrec_mm.data.encoded.vocabulary import NUMBER_GROUPS, UNSEEN, Vocabularies
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder, refuse_existing, write_json

SCORED = "scored"


def encode_folder(
    data: Path,
    splits: Sequence[str],
    out: Path,
    *,
    max_behaviours: int,
    min_count: int = 1,
    vocabularies: Vocabularies | None = None,
    frequency: ItemFrequency | None = None,
    at: Mapping[str, Any] = NOTHING,
) -> None:
    """Encode ``items/`` and ``requests/<split>`` of the folder ``data``.

    Args:
        data: folder in the layout of the data contract.
        splits: folders of ``requests/``, "train" among them unless vocabularies are given.
        out: the encoded data set to create, whole or not at all.
        max_behaviours: the newest behaviours kept of each request.
        min_count: training occurrences from which an item has a row of its own.
        vocabularies, frequency: what training learned; given, nothing is learned here.
        at: values that all impressions are given, by feature of the vocabularies.

    Raises:
        InputError: ``out`` exists, or anything that breaks the contract: file and rule named.
    """
    refuse_existing(out)
    folders = {split: data / "requests" / split for split in splits}
    source = RequestFolders(
        folders, data / "items", max_behaviours=max_behaviours, known=vocabularies, at=at
    )
    encode(source, out, min_count=min_count, vocabularies=vocabularies, frequency=frequency)


def encode_to_score(
    requests: Path,
    items: Path,
    out: Path,
    *,
    max_behaviours: int,
    vocabularies: Vocabularies,
    at: Mapping[str, Any] = NOTHING,
) -> None:
    """Encode a folder of requests that nothing is learned from; labels are not read.

    Args:
        requests: files with the columns of ``requests/``. items: in the layout of ``items/``.
        out: the encoded data set to create, whole or not at all; its split is ``SCORED``.
        max_behaviours: the newest behaviours kept of each request. vocabularies: of the model.
        at: values that all impressions are given, by feature.

    Raises:
        InputError: see ``encode_folder``.
    """
    refuse_existing(out)
    split = {SCORED: requests}
    source = RequestFolders(
        split, items, max_behaviours=max_behaviours, known=vocabularies, has_labels=False, at=at
    )
    encode(source, out, vocabularies=vocabularies)


def encode(
    source: RequestSource,
    out: Path,
    *,
    min_count: int = 1,
    vocabularies: Vocabularies | None = None,
    frequency: ItemFrequency | None = None,
) -> None:
    """Encode any source; see ``encode_folder``."""
    learning = vocabularies is None
    if vocabularies is not None:
        check_features(source, vocabularies)
    else:
        check_names(
            ("item_id", *source.items.attributes, *source.items.numbers, *source.items.bags),
            (*source.request_features, *source.request_numbers, *source.request_bags),
            source.behaviour_features,
            (*source.impression_features, *source.impression_numbers),
            shared=shared_tables(source.further),
        )
        if TRAIN not in source.splits:
            raise InputError(f"splits must hold {TRAIN}, got {', '.join(source.splits)}")
    with new_folder(out) as folder, _scratch(folder) as scratch:
        numbering = Numbering(source)
        item_bags = ItemBags(source, scratch / "items")
        for split in source.splits:
            numbering.add(split, scratch / split)
        if numbering.times is not None:
            source.items.check_clock("items/", *numbering.times)
        for name, text_ids in text_ids_of(source.further).items():
            text_ids.check(f"column {name}")
        all_items = AllItems(numbering, source)
        if vocabularies is None:
            shared = learn_shared(source, numbering.features, all_items, item_bags)
            vocabularies = replace(
                learn_features(source, numbering.features, shared),
                numbers=learn_numbers(source, numbering.splits[TRAIN], all_items),
            )
        mapper = Mapper(numbering, all_items, vocabularies)
        numbering.forget_ids()
        of_lists = (*vocabularies.behaviour, *vocabularies.impression)
        of_requests = (*vocabularies.request, *vocabularies.request_bag)
        unseen = Counter(dict.fromkeys((*of_requests, *of_lists), 0))
        for split, numbered in numbering.splits.items():
            requests = numbered.sizes["requests"]
            mapped = partial(mapper.map, numbered)
            with tqdm(total=requests, desc=f"encode {split}", unit="request", disable=None) as bar:
                to, has_weights = folder / "requests" / split, numbered.has_weights
                unseen.update(write_split(to, numbered.spool, mapped, bar, has_weights))
        if learning:
            item = learn_items(source, all_items, min_count, shared)
            item_bag = learn_item_bags(source, all_items, item_bags, shared)
            vocabularies = replace(vocabularies, item=item, item_bag=item_bag)
            frequency = frequency_of(all_items)
        all_items.save(folder / "items", vocabularies)
        unseen_values = item_bags.save(folder / "items", all_items, vocabularies.item_bag)
        vocabularies.save(folder / "vocabularies.safetensors")
        if frequency is not None:
            frequency.save(folder / "item_frequency.safetensors")
        unseen_items = _unseen_items(source, all_items, vocabularies)
        unseen_items |= {
            name: sum(counts.sum_of(values) for counts in all_items.counts.values())
            for name, values in unseen_values.items()
        }
        lengths = {name: item_bags.mean_length(name) for name in vocabularies.item_bag}
        lengths |= {name: numbering.mean_length(name) for name in vocabularies.request_bag}
        meta = _describe(source, vocabularies) | {
            "unseen": {name: int(count) for name, count in (unseen_items | unseen).items()},
            "attribute_disagreements": {
                name: learned.disagreements for name, learned in numbering.attributes.items()
            },
            "notes": dict(source.notes),
            **({"bag_lengths": lengths} if lengths else {}),
            "splits": {split: numbered.sizes for split, numbered in numbering.splits.items()},
        }
        if weighted := [s for s, numbered in numbering.splits.items() if numbered.has_weights]:
            meta["weighted"] = weighted
        write_json(folder / "meta.json", meta)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder in ``folder`` for the block."""
    scratch = folder / "numbers"
    scratch.mkdir()
    yield scratch
    shutil.rmtree(scratch)


def _unseen_items(
    source: RequestSource, all_items: AllItems, vocabularies: Vocabularies
) -> dict[str, int]:
    """By item feature, occurrences of items on row 0."""
    return {
        name: sum(
            of_split.total(is_unseen, with_behaviours=name in source.behaviour_item_features)
            for of_split in all_items.counts.values()
        )
        for name in vocabularies.item
        for is_unseen in [all_items.table_rows(name, vocabularies) == UNSEEN]
    }


def _describe(source: RequestSource, vocabularies: Vocabularies) -> dict[str, Any]:
    """The part of ``meta.json`` that is not counts."""
    item_features = list(vocabularies.item)
    items = [*item_features, *vocabularies.item_bag]
    further: dict[str, Iterable[str]] = {
        "impression_features": vocabularies.impression,
        "request_bags": vocabularies.request_bag,
        "item_bags": vocabularies.item_bag,
        **{f"{group}_numbers": vocabularies.numbers_of(group) for group in NUMBER_GROUPS},
        "sequences": vocabularies.sequences,
    }
    return {
        "format": FORMAT,
        "vocabulary": vocabularies.fingerprint,
        "request_features": list(vocabularies.request),
        "item_features": item_features,
        "behaviour_item_features": [
            name for name in items if name in source.behaviour_item_features
        ],
        "behaviour_features": list(vocabularies.behaviour),
        **{kind: each for kind, names in further.items() if (each := list(names))},
        "max_behaviours": source.max_behaviours,
    }
