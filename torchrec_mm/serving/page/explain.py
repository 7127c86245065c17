"""What a score is made of: terms that add up, and what it would be without a part's input.

The network is no sum of its parts, so what a part is worth to a candidate is told by leaving it
out: the probability if the part had found nothing, as it does of items without a vector and users
without a past. Where training had hardly any of them, what the network says of that is a guess.

Shape letters: I impressions, N tiers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.data.encoded.arrays import EncodedItems, RequestArrays
from torchrec_mm.data.stream.batches import FurtherBehaviours, RequestBatch
from torchrec_mm.ranking.bias import BiasModel
from torchrec_mm.ranking.lookups import Lookups
from torchrec_mm.ranking.ranker import Ranker, looked_up
from torchrec_mm.serving.scorer import BiasScorer, NetworkScorer

REST, BASE, USER, ITEM = "network", "click rate", "user and context", "item"
EFFECTS, MAKE = "user's effects", "MAKE's logit"


@dataclass(frozen=True)
class Explained:
    """Of each impression of a batch.

    logits: (I,) float32. terms: (I,) log-odds by name, whose sum they are. without: by part the
    (I,) probability if the part had found nothing. tiers: (I, N) behaviours by cosine, or None.
    """

    logits: np.ndarray
    terms: dict[str, np.ndarray]
    without: dict[str, np.ndarray]
    tiers: np.ndarray | None

    @property
    def probabilities(self) -> np.ndarray:
        """(I,) float32."""
        return sigmoid(self.logits)


def explain(
    model: BiasScorer | NetworkScorer, arrays: RequestArrays, items: EncodedItems
) -> Explained:
    """Explain the scores of requests as ``RequestEncoder`` gives them."""
    if isinstance(model, BiasScorer):
        return _of_rates(model.model, arrays, items)
    return _of_network(model.ranker, model.batch(arrays, items))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Log-odds to probabilities, as the scorer does."""
    return torch.from_numpy(logits).sigmoid().numpy()


def _of_rates(model: BiasModel, arrays: RequestArrays, items: EncodedItems) -> Explained:
    nobody = np.empty(0)
    of_users = replace(model, item_ids=nobody.astype(np.int64), item_offsets=nobody)
    logits, with_user = model.logits(arrays, items), of_users.logits(arrays, items)
    base = np.full_like(logits, model.base)
    terms = {BASE: base, USER: with_user - base, ITEM: logits - with_user}
    return Explained(logits, terms, {}, None)


@torch.no_grad()
def _of_network(ranker: Ranker, batch: RequestBatch) -> Explained:
    def logits_of(other: RequestBatch) -> np.ndarray:
        _, outputs = ranker(other)
        return outputs.logits.numpy()

    logits = logits_of(batch)
    terms = {name: each.numpy() for name, each in _linear_terms(ranker, batch).items()}
    terms = {REST: logits - sum(terms.values()), **terms}
    without = {name: sigmoid(logits_of(other)) for name, other in left_out(batch)}
    search = batch.search
    tiers = None if search is None or search.tiers is None else search.tiers.numpy()
    return Explained(logits, terms, without, tiers)


def _linear_terms(ranker: Ranker, batch: RequestBatch) -> dict[str, Tensor]:
    """(I,) of each that is added to the logit as it is."""
    network, spec = ranker.network, ranker.network.spec
    embeddings, effects = looked_up(ranker, batch)
    lookups = Lookups.of(batch, spec, embeddings)
    # The first column of each embedding is its bias.
    first = slice(None, None, spec.embedding_dim)
    of_items = lookups.items(tuple(spec.tables.item), lookups.impressions)[:, first].sum(1)
    of_impressions = lookups.of_impressions()
    if of_impressions is not None:
        of_items = of_items + of_impressions[:, first].sum(1)
    terms = {
        BASE: network.base_logit.expand(of_items.shape),
        USER: lookups.requests()[:, first].sum(1)[batch.request],
        ITEM: of_items,
    }
    if effects is not None and network.effects is not None:
        terms[EFFECTS] = network.effects.logit(batch, effects)
    if batch.made is not None and "make_logit" not in spec.left_out:
        terms[MAKE] = batch.made[:, -1]
    return terms


def left_out(batch: RequestBatch) -> Iterator[tuple[str, RequestBatch]]:
    """By part the batch in which it finds nothing; parts that the ranker has, and no others."""
    search = batch.search
    yield "attention to the past", _without_past(batch)
    if search is not None and search.tiers is not None:
        zeros = replace(search, tiers=torch.zeros_like(search.tiers))
        further = tuple(replace(each, tiers=_zeros(each.tiers)) for each in batch.sequences)
        yield "tiers of likeness", replace(batch, search=zeros, sequences=further)
    if search is not None and search.cosine is not None:
        zeros = replace(search, cosine=torch.zeros_like(search.cosine))
        further = tuple(replace(each, cosine=_zeros(each.cosine)) for each in batch.sequences)
        yield "cosine of each pair", replace(batch, search=zeros, sequences=further)
    if search is not None and search.kept_length is not None:
        none = replace(search, kept_length=torch.zeros_like(search.kept_length))
        yield "attention to the most alike", replace(batch, search=none)
    if batch.made is not None:
        yield "MAKE", replace(batch, made=torch.zeros_like(batch.made))
    if batch.vectors is not None and batch.vector_mask is not None:
        yield "item vectors", replace(batch, vector_mask=torch.zeros_like(batch.vector_mask))


def _without_past(batch: RequestBatch) -> RequestBatch:
    """Without behaviours, and without those of further sequences; tiers and MAKE stay."""
    search = batch.search
    if search is not None and search.cosine is not None:
        search = replace(search, cosine=search.cosine[:0])
    return replace(
        batch,
        behaviours=batch.behaviours[:0],
        behaviour_offsets=torch.zeros_like(batch.behaviour_offsets),
        behaviour_attributes=batch.behaviour_attributes[:, :0],
        most_behaviours=0,
        search=search,
        sequences=tuple(map(_emptied, batch.sequences)),
    )


def _emptied(further: FurtherBehaviours) -> FurtherBehaviours:
    return replace(
        further,
        slots=further.slots[:0],
        offsets=torch.zeros_like(further.offsets),
        most=0,
        cosine=None if further.cosine is None else further.cosine[:0],
    )


def _zeros(values: Tensor | None) -> Tensor | None:
    return None if values is None else torch.zeros_like(values)
