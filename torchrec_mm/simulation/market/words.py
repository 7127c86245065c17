"""Titles and query texts: the hidden attributes in words, among words that mean nothing.

Every value has two plain words and one invented trade name (which no pretrained encoder knows).
Sellers add brand, size code and advertising; buyers type less and add other small words.
"""

import numpy as np

SHAPES = (
    ("shirt", "blouse"), ("tunic", "smock"), ("lamp", "lantern"), ("vase", "urn"),
    ("cushion", "pillow"), ("blanket", "throw"), ("bag", "satchel"), ("wallet", "purse"),
    ("clock", "timepiece"), ("mirror", "looking glass"), ("bowl", "dish"), ("mug", "cup"),
)  # fmt: skip
COLOURS = (
    ("red", "crimson"), ("orange", "amber"), ("yellow", "lemon"), ("green", "emerald"),
    ("teal", "turquoise"), ("blue", "navy"), ("purple", "violet"), ("pink", "rose"),
    ("brown", "chocolate"), ("grey", "slate"),
)  # fmt: skip
PATTERNS = (
    ("plain", "solid"), ("striped", "banded"), ("pinstriped", "lined"),
    ("checked", "gingham"), ("dotted", "polka dot"), ("zigzag", "chevron"),
)  # fmt: skip
MATERIALS = (
    ("matte", "flat"), ("glossy", "shiny"), ("woollen", "knitted"),
    ("ribbed", "corduroy"), ("woven", "canvas"), ("speckled", "terrazzo"),
)  # fmt: skip
TRIMS = (
    ("simple", "untrimmed"), ("dark edged", "black bordered"), ("light edged", "white bordered"),
    ("badged", "with emblem"), ("belted", "with band"),
)  # fmt: skip
ATTRIBUTES = (SHAPES, COLOURS, PATTERNS, MATERIALS, TRIMS)
NUM_VALUES = tuple(len(values) for values in ATTRIBUTES)

ADVERTISING = ("new", "2024", "bestseller", "premium", "limited", "original", "classic", "sale")
BUYERS_WORDS = ("cheap", "gift", "for home", "nice", "buy", "best", "large", "small")
SYLLABLES = ("va", "ri", "lo", "ne", "ka", "su", "mi", "tor", "bel", "dax", "quo", "zen")

SELLER_NAMES_IT = 0.85  # chance that a title names an attribute
SELLER_TRADE_NAME = 0.4  # chance that it does so by the trade name
BUYER_NAMES_IT = 0.7
BUYER_TRADE_NAME = 0.25


def product_titles(
    attributes: np.ndarray, brand: np.ndarray, rng: np.random.Generator
) -> list[str]:
    """One title an item: brand, words of its attributes in any order, size code, advertising.

    ``attributes`` (N, 5) int64, a value of each of ``ATTRIBUTES``; ``brand`` (N,) int64.
    """
    named = attribute_words(
        attributes, names_it=SELLER_NAMES_IT, trade_name=SELLER_TRADE_NAME, rng=rng
    )
    sizes = rng.integers(10, 99, size=len(attributes))
    advertising = rng.integers(len(ADVERTISING), size=len(attributes))
    return [
        " ".join([invented(1000 + b), *words, ADVERTISING[a], f"{invented(b)[:2].upper()}-{s}"])
        for b, words, a, s in zip(
            brand.tolist(), named, advertising.tolist(), sizes.tolist(), strict=True
        )
    ]


def attribute_queries(attributes: np.ndarray, rng: np.random.Generator) -> list[str]:
    """One query text a search from the wanted item's attributes (N, 5); two words at least."""
    named = attribute_words(
        attributes, names_it=BUYER_NAMES_IT, trade_name=BUYER_TRADE_NAME, rng=rng
    )
    return _with_buyers_words(named, rng)


def title_queries(titles: list[str], rng: np.random.Generator) -> list[str]:
    """One query text a search: some of the words of the wanted item's title, in order."""
    keep = [rng.random(len(title.split())) < BUYER_NAMES_IT for title in titles]
    some = [
        [word.lower() for word, kept in zip(title.split(), mask, strict=True) if kept]
        or [title.lower()]
        for title, mask in zip(titles, keep, strict=True)
    ]
    return _with_buyers_words(some, rng)


def attribute_words(
    attributes: np.ndarray, *, names_it: float, trade_name: float, rng: np.random.Generator
) -> list[list[str]]:
    """Some attributes of each row in words, shuffled; the two likeliest to be named always are."""
    rows, width = attributes.shape
    draw = rng.random((rows, width))
    named = (draw < names_it) | (draw.argsort(axis=1).argsort(axis=1) < 2)
    word = np.where(rng.random((rows, width)) < trade_name, 2, rng.integers(2, size=(rows, width)))
    order = rng.random((rows, width)).argsort(axis=1)
    return [
        [VOCABULARY[a][values[a]][words[a]] for a in turn if mask[a]]
        for values, words, mask, turn in zip(
            attributes.tolist(), word.tolist(), named.tolist(), order.tolist(), strict=True
        )
    ]


def invented(number: int) -> str:
    """A made-up word; different numbers below 1728 give different words."""
    base = len(SYLLABLES)
    return "".join(SYLLABLES[number // base**power % base] for power in range(3))


def _with_buyers_words(words: list[list[str]], rng: np.random.Generator) -> list[str]:
    extra = rng.integers(2 * len(BUYERS_WORDS), size=len(words)).tolist()
    return [
        " ".join(text if noise >= len(BUYERS_WORDS) else [BUYERS_WORDS[noise], *text])
        for text, noise in zip(words, extra, strict=True)
    ]


VOCABULARY = [
    [(*words, invented(100 + 20 * a + v)) for v, words in enumerate(values)]
    for a, values in enumerate(ATTRIBUTES)
]
