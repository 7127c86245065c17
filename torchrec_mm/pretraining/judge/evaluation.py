"""How good the vectors are before any ranker: held-out searches against all items.

Shape letters: N items, Q held-out searches, H hard-negative slots, D width of a space.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.errors import InputError
from torchrec_mm.metrics.retrieval import TIE, cosine_to, count_above
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.pretraining.encoder.item_encoder import FUSED
from torchrec_mm.pretraining.judge.space_figures import SpaceSearches, rank_figures, shared_ranks

COLLAPSED = 0.9
MAX_CATEGORY_VALUES = 20


def retrieval_report(
    items: dict[str, Tensor],
    item_mask: dict[str, Tensor],
    queries: dict[str, Tensor],
    query_mask: dict[str, Tensor],
    purchased: np.ndarray,
    hard: np.ndarray,
    categories: Mapping[str, np.ndarray],
    worker: Worker,
) -> dict[str, Any]:
    """Retrieval in every space: "image", "text", "fused", or the only one there is.

    A search counts in a space where both its query and its purchased item have a vector. Queries
    that occur in training as well are not excluded: popular queries repeat in real use too. Every
    rank passes the same arguments, ranks its share of the searches and gets the same report. The
    first one warns of vectors that have collapsed, with a mean cosine above ``COLLAPSED``.

    Args:
        items: (N, D) unit vectors by space, on any device; anything where the mask is False.
        item_mask: (N,) bool by space, True where the item has a vector.
        queries: (Q, D) unit vectors of the held-out searches by space, likewise.
        query_mask: (Q,) bool by space.
        purchased: (Q,) int64 rows of the items.
        hard: (Q, H) int64 rows of the items, -1 in empty slots.
        categories: (N,) int64 by name of an attribute.
        worker: this process; its device does the work.

    Returns:
        "recall@1", "recall@10", "recall@100", "mrr", "hard_negative_accuracy", "searches", "items"
        (those with a vector), "alignment" of queries and purchased items, "uniformity" and
        "mean_cosine" of items: of the fused space, or of the only one. "spaces": the same of each.
        "categories": by attribute and value of the purchased item "recall@10" and "searches", for
        the ``MAX_CATEGORY_VALUES`` most searched values. None where there is nothing to measure.

    Raises:
        InputError: a vector is not finite, as after a training that diverged.
    """
    rows, slots = torch.from_numpy(np.array(purchased)), torch.from_numpy(np.array(hard))
    spaces, ranks, bought = {}, {}, {}
    for space in items:
        searches = SpaceSearches.that_count(
            items[space], item_mask[space], queries[space], query_mask[space], rows, slots
        )
        figures = searches.sphere_figures()
        if worker.is_first:
            _warn_if_collapsed(space, figures["mean_cosine"])
        ranks[space], bought[space] = searches.ranks(worker), searches.purchased
        accuracy = searches.hard_negative_accuracy(worker)
        figures |= rank_figures(ranks[space]) | {"hard_negative_accuracy": accuracy}
        spaces[space] = figures
    main = main_space(items)
    hits, found = (ranks[main] <= 10).numpy(), bought[main].numpy()
    return spaces[main] | {
        "spaces": spaces,
        "categories": {
            name: _recall_by_value(values[found], hits) for name, values in categories.items()
        },
    }


def main_space(spaces: Iterable[str]) -> str:
    """The one that encoders are compared in: both modalities together, or the only one."""
    names = list(spaces)
    return FUSED if FUSED in names else names[0]


def main_mrr(
    items: Tensor,
    item_mask: Tensor,
    queries: Tensor,
    query_mask: Tensor,
    purchased: np.ndarray,
    worker: Worker,
) -> float | None:
    """The "mrr" of ``retrieval_report`` of one space alone, for a small part of the work.

    Args and None as there, of one space: items (N, D), queries (Q, D), masks (N,) and (Q,).

    Raises:
        InputError: a vector is not finite.
    """
    rows = torch.from_numpy(np.array(purchased))
    none = rows.new_empty(len(rows), 0)
    searches = SpaceSearches.that_count(items, item_mask, queries, query_mask, rows, none)
    known = items[searches.present.to(items.device)]
    if not (known.isfinite().all() and searches.queries.isfinite().all()):
        raise InputError("item and query vectors must be finite, got NaN or infinity")
    mrr: float | None = rank_figures(searches.ranks(worker))["mrr"]
    return mrr


def title_to_picture(
    text: Tensor,
    image: Tensor,
    text_mask: Tensor,
    image_mask: Tensor,
    among: np.ndarray,
    title_content: np.ndarray,
    worker: Worker,
) -> dict[str, Any]:
    """How well titles find the pictures of their items, by cosine: what CLIP-E is trained for.

    Items of equal titles ask once, and any of their pictures is right: a query is a distinct title
    of the items that have both, and its rank is 1 + pictures of other titles nearer than its
    nearest own + (those as near) / 2. Every rank passes the same arguments, all get the same.

    Args:
        text: (N, D) unit vectors of the titles; anything where the mask is False.
        image: (N, D) unit vectors of the pictures, likewise.
        text_mask: (N,) bool.
        image_mask: (N,) bool.
        among: (N,) bool, True for the items whose titles ask and whose pictures are ranked.
        title_content: (N,) int64, equal where the titles are equal.
        worker: this process; its device does the work.

    Returns:
        "recall@1", "recall@10", "mrr", "searches" (titles) and "items" (pictures); None where
        there is nothing to measure.

    Raises:
        InputError: a vector is not finite, as after a training that diverged.
    """
    with_picture = torch.from_numpy(np.array(among)) & image_mask.cpu()
    masks = (with_picture, with_picture & text_mask.cpu())
    pictures, both = (torch.nonzero(mask)[:, 0] for mask in masks)
    contents = torch.from_numpy(title_content[both.numpy()])
    titles, title_of = torch.unique(contents, return_inverse=True)
    first = torch.full_like(titles, len(text)).scatter_reduce(0, title_of, both, "amin")
    queries, title_of = text[first].to(worker.device), title_of.to(worker.device)
    cosine = cosine_to(queries[title_of], image, image_mask, both)
    if not cosine.isfinite().all():
        raise InputError("title and picture vectors must be finite, got NaN")
    nearest = cosine.new_full(titles.shape, -torch.inf).scatter_reduce(0, title_of, cosine, "amax")
    as_near = (cosine >= nearest[title_of] - TIE).double()
    own = torch.zeros_like(nearest).index_add(0, title_of, as_near)

    def ranks(mine: slice) -> Tensor:
        ranked = image[pictures], torch.ones_like(pictures, dtype=torch.bool)
        above, equal = count_above(queries[mine], nearest[mine], *ranked)
        return 1 + above.double() + (equal.double() - own[mine]) / 2

    figures = rank_figures(shared_ranks(ranks, len(titles), worker))
    figures.pop("recall@100")
    return figures | {"items": len(pictures)}


def _warn_if_collapsed(space: str, cosine: float | None) -> None:
    if cosine is not None and cosine > COLLAPSED:
        logging.getLogger(__name__).warning(
            "%s vectors have collapsed: the mean cosine of two items is %.3f", space, cosine
        )


def _recall_by_value(values: np.ndarray, hits: np.ndarray) -> dict[str, dict[str, Any]]:
    """The most frequent of (S,) values with their count and share of hits, of equals the lowest."""
    distinct, value_of, counts = np.unique(values, return_inverse=True, return_counts=True)
    found = np.bincount(value_of, weights=hits, minlength=len(distinct))
    order = np.argsort(-counts, kind="stable")[:MAX_CATEGORY_VALUES]
    return {
        str(distinct[i]): {"recall@10": float(found[i] / counts[i]), "searches": int(counts[i])}
        for i in order
    }
