"""What lies near what, by item vectors.

python -m apps.neighbours --vectors DIR --items "[1, 2]"
python -m apps.neighbours --vectors DIR --encoder RUN --text "red shirt"
python -m apps.neighbours --vectors DIR --encoder RUN --queries FILE.txt --output FILE.parquet
python -m apps.neighbours --vectors DIR --search faiss --output FILE.parquet
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from torchrec_mm.columns.text_ids import MAPS, IdTexts, hash_text, id_maps
from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.contract.items import read_titles
from torchrec_mm.documents import read_text
from torchrec_mm.errors import InputError
from torchrec_mm.files import refuse_existing
from torchrec_mm.item_vectors.faiss_index import FaissIndex
from torchrec_mm.item_vectors.neighbour_file import write_neighbours, write_text_neighbours
from torchrec_mm.item_vectors.neighbours import Neighbours, Search, neighbours_of
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.targets import check_file, check_new_folder


@dataclass(frozen=True)
class NeighboursConfig:
    """Print the items nearest to some items, to texts or a picture; or write them to a file."""

    vectors: Path
    """folder of item vectors"""
    items: tuple[str | int, ...] | None = None
    """item_ids whose neighbours are printed, as in "[1, 2]", or with a map of ids the texts that
    they were, as in "[shirt, '12']"; an item is none of its own"""
    text: str | None = None
    """words to search by; with --image too, both make one query"""
    image: Path | None = None
    """JPEG, PNG or WebP to search by"""
    queries: Path | None = None
    """file of texts to search by, one a line, UTF-8"""
    encoder: Path | None = None
    """with --text, --image or --queries: the run of apps.pretrain that made the vectors"""
    output: Path | None = None
    """Parquet file to create, instead of printing: item_id of all items, or query of --queries;
    neighbour_ids list<int64>, cosines list<float>"""
    k: int = 10
    """neighbours of each"""
    search: Literal["exact", "faiss"] = "exact"
    """exact compares with every item; faiss looks where the nearest most likely are, for millions
    of items: pip install 'faiss-cpu>=1.9'"""
    index: Path | None = None
    """with faiss: folder of the index, created if missing, else reused; in memory if left out"""
    data: Path | None = None
    """folder that holds items/, for the titles"""
    ids: Path | None = None
    """folder of maps from ids to texts, which apps.prepare writes; not given: ids/ in --data, if
    there. item_ids are printed as those texts; those in --output are not"""

    def __post_init__(self) -> None:
        """Refuse values out of range and flags that do not go together."""
        check_fields(self, lambda k: k >= 1, "at least 1", "k")
        by_content = self.text is not None or self.image is not None
        of_all = self.output is not None and self.queries is None
        if (self.items is not None) + by_content + (self.queries is not None) + of_all != 1:
            raise InputError(
                "one of --items, --text or --image, --queries, --output must be given; "
                "--output may be with --queries"
            )
        if self.items is not None:
            check_fields(self, _may_be_item, "item_ids of int64 or text", "items")
        if self.text is not None and not self.text.strip():
            raise InputError(f"text must not be blank, got {self.text!r}")
        if (by_content or self.queries is not None) != (self.encoder is not None):
            rule = "encoder must be given with --text, --image or --queries, and only then"
            raise InputError(rule)
        if self.index is not None and self.search != "faiss":
            raise InputError(f"index must be left out unless --search is faiss, got {self.index}")


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table a query, or write the file."""
    config = parse(NeighboursConfig, argv)
    if config.output is not None:
        refuse_existing(config.output)
        check_file(config.output, "output", [config.vectors, config.queries])
    if config.index is not None and not config.index.exists():
        check_new_folder(config.index, "index")
    vectors = ItemVectors.open(config.vectors)
    texts = _queries(config.queries) if config.queries else []
    search = _search(config, vectors)
    if config.output is not None:
        print(f"neighbours of {_write(config, search, texts, config.output)} in {config.output}")
        return
    item_map = _item_map(config)
    asked = _item_ids(config.items or (), item_map, vectors)
    names, neighbours = _ask(config, asked, texts, search)
    shown = np.array(sorted({item_id for each in neighbours for item_id, _ in each} | {*asked}))
    titles = read_titles(config.data, shown) if config.data else {}
    called = shown.tolist() if item_map is None else IdTexts(item_map, shown)(shown).to_pylist()
    for line in _table(names, neighbours, titles, dict(zip(shown.tolist(), called, strict=True))):
        print(line)


def _may_be_item(item: int | str) -> bool:
    return isinstance(item, str) or -(2**63) <= item < 2**63


def _item_map(config: NeighboursConfig) -> Path | None:
    """The map of items, if there is one."""
    folder = config.ids
    if folder is None:
        folder = config.data and config.data / "ids"
        if folder is None or not folder.exists():
            return None
    return id_maps(folder).get("item_id")


def _item_ids(items: Sequence[int | str], item_map: Path | None, vectors: ItemVectors) -> list[int]:
    """Numbers of items that are given as numbers or as texts."""
    item_ids = {text: hash_text(text) for text in items if isinstance(text, str)}
    for text, item_id in item_ids.items():
        if item_map is None:
            raise InputError(f"items must be int64 without ids/{MAPS['item_id']}, got {text!r}")
        if item_id not in vectors.item_ids:
            raise InputError(f"items must have a vector in {vectors.folder}, got {text!r}")
    return [item_ids[item] if isinstance(item, str) else item for item in items]


def _queries(path: Path) -> list[str]:
    """The lines of the file; InputError for one without words, or for no line at all."""
    texts = read_text(path).removesuffix("\n").split("\n")
    for line, text in enumerate(texts, start=1):
        if not text.strip():
            raise InputError(f"queries must have words in every line, got none in {path}:{line}")
    return [text.strip() for text in texts]


def _search(config: NeighboursConfig, vectors: ItemVectors) -> Search:
    if config.search == "exact":
        return Neighbours(vectors)
    if config.index is not None and config.index.exists():
        return FaissIndex.open(config.index, vectors)
    index = FaissIndex.build(vectors)
    if config.index is not None:
        index.save(config.index)
    return index


def _write(config: NeighboursConfig, search: Search, texts: list[str], output: Path) -> str:
    """The file; returns of how many what it holds."""
    if config.queries is None:
        write_neighbours(search, config.k, output)
        return f"{len(search.vectors)} items"
    write_text_neighbours(search, texts, _encoded(config, search, texts), config.k, output)
    return f"{len(texts)} queries"


def _encoded(config: NeighboursConfig, search: Search, texts: list[str]) -> np.ndarray:
    """(Q, D) of the texts."""
    from torchrec_mm.pretraining.embed.queries import encode_texts

    assert config.encoder is not None  # with queries there is one
    return encode_texts(config.encoder, search.vectors, texts)


def _ask(
    config: NeighboursConfig, asked: list[int], texts: list[str], search: Search
) -> tuple[list[int | str], list[list[tuple[int, float]]]]:
    """What was asked for, an item_id or words, and the neighbours (item_id, cosine) of each."""
    item_ids = search.vectors.item_ids
    if config.items is not None:
        found = neighbours_of(search, np.array(asked, dtype=np.int64), config.k)
        return [*asked], found.named(item_ids)
    if config.queries is not None:
        queries = _encoded(config, search, texts)
        return [*texts], search.search(queries, config.k).named(item_ids)
    from torchrec_mm.pretraining.embed.queries import encode_query

    assert config.encoder is not None  # with words or a picture there is one
    query = encode_query(config.encoder, search.vectors, config.text, config.image)
    words = [str(part) for part in (config.text, config.image) if part is not None]
    return [" + ".join(words)], search.search(query, config.k).named(item_ids)


def _table(
    names: list[int | str],
    neighbours: list[list[tuple[int, float]]],
    titles: dict[int, str],
    texts: dict[int, int | str],
) -> Iterator[str]:
    """Lines: a heading for each query, then its neighbours; ``texts``: what items are called."""
    column = ["item_id", *(str(texts[item_id]) for each in neighbours for item_id, _ in each)]
    width = max(map(len, column))
    for name, found in zip(names, neighbours, strict=True):
        heading = name
        if isinstance(name, int):
            heading = f"item {texts[name]}  {titles.get(name, '')}"
        yield str(heading).rstrip()
        yield f"  rank  cosine  {'item_id':>{width}}  {'title' if titles else ''}".rstrip()
        for rank, (item_id, cosine) in enumerate(found, start=1):
            title = titles.get(item_id, "")
            yield f"  {rank:>4}  {cosine:6.3f}  {texts[item_id]:>{width}}  {title}".rstrip()


if __name__ == "__main__":
    sys.exit(run(main))
