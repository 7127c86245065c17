"""What lies near what, by item vectors.

python -m apps.neighbours --vectors DIR --items "[1, 2]"
python -m apps.neighbours --vectors DIR --encoder RUN --text "red shirt"
python -m apps.neighbours --vectors DIR --search faiss --output FILE.parquet
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.contract.items import read_titles
from torchrec_mm.errors import InputError
from torchrec_mm.files import refuse_existing
from torchrec_mm.item_vectors.faiss_index import FaissIndex
from torchrec_mm.item_vectors.neighbour_file import write_neighbours
from torchrec_mm.item_vectors.neighbours import Neighbours, Search, neighbours_of
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.targets import check_file, check_new_folder


@dataclass(frozen=True)
class NeighboursConfig:
    """Print the items nearest to some items, a text or a picture; or write those of all items."""

    vectors: Path
    """folder of item vectors"""
    items: tuple[int, ...] | None = None
    """item_ids whose neighbours are printed, as in "[1, 2]"; an item is none of its own"""
    text: str | None = None
    """words to search by; with --image too, both make one query"""
    image: Path | None = None
    """JPEG, PNG or WebP to search by"""
    encoder: Path | None = None
    """with --text or --image: the run of apps.pretrain that made the vectors"""
    output: Path | None = None
    """Parquet file to create, all items: item_id, neighbour_ids list<int64>, cosines list<float>"""
    k: int = 10
    """neighbours of each"""
    search: Literal["exact", "faiss"] = "exact"
    """exact compares with every item; faiss looks where the nearest most likely are, for millions
    of items: pip install 'faiss-cpu>=1.9'"""
    index: Path | None = None
    """with faiss: folder of the index, created if missing, else reused; in memory if left out"""
    data: Path | None = None
    """folder that holds items/, for the titles"""

    def __post_init__(self) -> None:
        """Refuse values out of range and flags that do not go together."""
        check_fields(self, lambda k: k >= 1, "at least 1", "k")
        by_content = self.text is not None or self.image is not None
        if (self.items is not None) + by_content + (self.output is not None) != 1:
            raise InputError("one of --items, --text or --image, --output must be given")
        if self.items is not None:
            check_fields(self, lambda item: -(2**63) <= item < 2**63, "item_ids of int64", "items")
        if self.text is not None and not self.text.strip():
            raise InputError(f"text must not be blank, got {self.text!r}")
        if by_content != (self.encoder is not None):
            raise InputError("encoder must be given with --text or --image, and only then")
        if self.index is not None and self.search != "faiss":
            raise InputError(f"index must be left out unless --search is faiss, got {self.index}")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table a query, or write the file."""
    config = parse(NeighboursConfig, argv)
    if config.output is not None:
        refuse_existing(config.output)
        check_file(config.output, "output", [config.vectors])
    if config.index is not None and not config.index.exists():
        check_new_folder(config.index, "index")
    vectors = ItemVectors.open(config.vectors)
    search = _search(config, vectors)
    if config.output is not None:
        write_neighbours(search, config.k, config.output)
        print(f"neighbours of {len(vectors)} items in {config.output}")
        return
    names, neighbours = _ask(config, search)
    shown = {item_id for each in neighbours for item_id, _ in each} | set(config.items or [])
    titles = read_titles(config.data, np.array(sorted(shown))) if config.data else {}
    for line in _table(names, neighbours, titles):
        print(line)


def _search(config: NeighboursConfig, vectors: ItemVectors) -> Search:
    if config.search == "exact":
        return Neighbours(vectors)
    if config.index is not None and config.index.exists():
        return FaissIndex.open(config.index, vectors)
    index = FaissIndex.build(vectors)
    if config.index is not None:
        index.save(config.index)
    return index


def _ask(
    config: NeighboursConfig, search: Search
) -> tuple[list[int | str], list[list[tuple[int, float]]]]:
    """What was asked for, an item_id or words, and the neighbours (item_id, cosine) of each."""
    item_ids = search.vectors.item_ids
    if config.items is not None:
        found = neighbours_of(search, np.array(config.items, dtype=np.int64), config.k)
        return list(config.items), found.named(item_ids)
    from torchrec_mm.pretraining.embed.queries import encode_query

    assert config.encoder is not None  # with words or a picture there is one
    query = encode_query(config.encoder, search.vectors, config.text, config.image)
    asked = [str(part) for part in (config.text, config.image) if part is not None]
    return [" + ".join(asked)], search.search(query, config.k).named(item_ids)


def _table(
    names: list[int | str], neighbours: list[list[tuple[int, float]]], titles: dict[int, str]
) -> Iterator[str]:
    """Lines: a heading for each query, then its neighbours."""
    column = ["item_id", *(str(item_id) for each in neighbours for item_id, _ in each)]
    width = max(map(len, column))
    for name, found in zip(names, neighbours, strict=True):
        heading = f"item {name}  {titles.get(name, '')}" if isinstance(name, int) else name
        yield heading.rstrip()
        yield f"  rank  cosine  {'item_id':>{width}}  {'title' if titles else ''}".rstrip()
        for rank, (item_id, cosine) in enumerate(found, start=1):
            title = titles.get(item_id, "")
            yield f"  {rank:>4}  {cosine:6.3f}  {item_id:>{width}}  {title}".rstrip()


if __name__ == "__main__":
    sys.exit(run(main))
