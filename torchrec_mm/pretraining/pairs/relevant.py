"""What else was bought by the same query: no negative of it, whoever put it into the batch or bank.

Shape letters: N items, S searches, P pairs to train on, n rows asked for, R (row, item) pairs.
"""

from dataclasses import dataclass

import numpy as np

from torchrec_mm.data.content.packed import PackedContent


@dataclass(frozen=True)
class Relevant:
    """Items bought by equal queries, of one space.

    group: (N + S,) int64, equal for rows of equal queries, -1 for rows that are no such query.
    items: rows of items, those of group g from starts[g] to starts[g + 1]; starts: (G + 1,) int64.
    """

    group: np.ndarray
    starts: np.ndarray
    items: np.ndarray

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of (n,) int64 rows all items: (R,) int64 places in [0, n), and (R,) rows of items."""
        group = self.group[rows]
        at = np.flatnonzero(group >= 0)
        first = self.starts[group[at]]
        counts = self.starts[group[at] + 1] - first
        within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        return np.repeat(at, counts), self.items[np.repeat(first, counts) + within]


def relevant_items(
    packed: PackedContent, queries: np.ndarray, keys: np.ndarray
) -> dict[str, Relevant]:
    """By space of the packed content, of the pairs to train on.

    Texts are equal whatever their case and spaces; fused queries, where text and picture both are.

    Args:
        queries: (P,) int64 rows of searches. keys: (P,) int64 rows of items.
    """
    asked = np.unique(queries)
    contents = {name: of.content[asked] for name, of in packed.by_modality.items()}
    if "text" in contents:
        contents["text"] = _equal_texts(packed, asked, contents["text"])
    if len(contents) > 1:
        both = np.stack(list(contents.values()), axis=1)
        contents["fused"] = np.unique(both, axis=0, return_inverse=True)[1].ravel()
    place = np.searchsorted(asked, queries)
    num_rows = packed.num_items + packed.num_searches
    return {
        space: _grouped(content, asked, place, keys, num_rows)
        for space, content in contents.items()
    }


def _equal_texts(packed: PackedContent, rows: np.ndarray, content: np.ndarray) -> np.ndarray:
    """(n,) int64, equal where the texts are but for case and spaces; -1 where missing."""
    distinct, of = np.unique(content, return_inverse=True)
    present = distinct >= 0
    texts = packed.by_modality["text"].texts(distinct[present])
    number: dict[str, int] = {}
    plain = [number.setdefault(" ".join(text.casefold().split()), len(number)) for text in texts]
    group = np.full(len(distinct), -1)
    group[present] = plain
    return group[of]


def _grouped(
    content: np.ndarray, asked: np.ndarray, place: np.ndarray, keys: np.ndarray, num_rows: int
) -> Relevant:
    _, group = np.unique(content, return_inverse=True)
    bought = np.unique(np.stack([group[place], keys], axis=1), axis=0)
    starts = np.searchsorted(bought[:, 0], np.arange(group.max(initial=-1) + 2))
    of_rows = np.full(num_rows, -1)
    of_rows[asked] = np.where(content >= 0, group, -1)
    return Relevant(of_rows, starts, bought[:, 1])
