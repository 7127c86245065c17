"""Items that equal queries found, against going through all pairs."""

from types import SimpleNamespace

import numpy as np
import pytest

from torchrec_mm.pretraining.pairs.relevant import relevant_items

ITEMS, SEARCHES = 6, 40


@pytest.fixture
def packed():
    """Searches of few texts, written in many ways, and few photos; some lack one."""
    generator = np.random.default_rng(0)
    words, photos = generator.integers(-1, 4, (2, SEARCHES))
    written = [f"{' ' * (i % 3)}{'Word' if i % 2 else 'wORD'}  {w}" for i, w in enumerate(words)]
    first: dict = {}
    rows = ITEMS + np.arange(SEARCHES)

    def contents(values, missing):
        alike = [first.setdefault(value, row) for row, value in zip(rows, values, strict=True)]
        return np.concatenate([np.arange(ITEMS), np.where(missing, -1, alike)])

    text = SimpleNamespace(
        content=contents(written, words < 0), texts=lambda of: [written[i - ITEMS] for i in of]
    )
    image = SimpleNamespace(content=contents(photos.tolist(), photos < 0))
    return SimpleNamespace(
        num_items=ITEMS,
        num_searches=SEARCHES,
        by_modality={"image": image, "text": text},
        words=words,
        photos=photos,
    )


@pytest.mark.parametrize("space", ["image", "text", "fused"])
def test_all_that_equal_queries_found_is_relevant_and_nothing_else(packed, space):
    queries = ITEMS + np.random.default_rng(1).permutation(SEARCHES)[:30]
    keys = np.random.default_rng(2).integers(0, ITEMS, len(queries))
    of = {"image": packed.photos, "text": packed.words}
    of["fused"] = of["image"] * 100 + of["text"]
    of = of[space][queries - ITEMS]
    relevant = relevant_items(packed, queries, keys)[space]
    place, items = relevant.of(queries)
    for i in range(len(queries)):
        is_missing = space != "fused" and of[i] == -1
        expected = set() if is_missing else {*keys[of == of[i]].tolist()}
        assert sorted(items[place == i].tolist()) == sorted(expected)


def test_rows_that_are_no_query_of_training_have_nothing(packed):
    relevant = relevant_items(packed, np.array([ITEMS]), np.array([2]))
    for space in relevant.values():
        assert [len(part) for part in space.of(np.array([0, ITEMS + 1]))] == [0, 0]
