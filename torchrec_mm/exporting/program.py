"""The dense part of a ranker as a program of plain tensors: embeddings and vectors in, clicks out.

Lists are padded here, as most who score have them. What is then done with them is the ranker's own
network, and of what a batch of training brings along (search, MAKE) the definition in PyTorch.

Shape letters: R requests, C candidates and L behaviours of the longest, S item slots, E width of a
table, D item-vector width, N newest behaviours that are attended to, I = R * C.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from torchrec_mm.data.stream.batches import FurtherBehaviours, RequestBatch, SearchResults
from torchrec_mm.exporting.lists import Newest, newest_of, pairs_in_order
from torchrec_mm.kernels.general_search import SearchHits, search_padded
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.effects import EFFECTS
from torchrec_mm.ranking.make import makes_in, unit_vectors
from torchrec_mm.ranking.network import RankingNetwork

Given = Mapping[str, Tensor]


class Compared(NamedTuple):
    """What vectors say: of ``behaviours`` (R, W), -1 for padding, and what was found in them."""

    behaviours: Tensor
    hits: SearchHits


class Program(nn.Module):
    """Click probabilities (R, C) float32, 0 for padding, of what ``inputs.inputs_of`` describes."""

    def __init__(self, network: RankingNetwork, max_behaviours: int) -> None:
        """``max_behaviours``: N, the newest that target attention sees."""
        super().__init__()
        self.network, self.newest = network.eval(), max_behaviours

    def forward(
        self,
        candidates: Tensor,
        behaviours: Tensor,
        requests: Tensor,
        items: Tensor,
        sequences: Tensor | None = None,
        impressions: Tensor | None = None,
        behaviour_attributes: Tensor | None = None,
        request_numbers: Tensor | None = None,
        target_numbers: Tensor | None = None,
        effects: Tensor | None = None,
        vectors: Tensor | None = None,
        has_vector: Tensor | None = None,
    ) -> Tensor:
        """Score requests; None for what the ranker does not have."""
        named = {name: each for name, each in locals().items() if name != "self"}
        given: Given = {name: each for name, each in named.items() if each is not None}
        batch = self._batch(given)
        _, outputs = self.network(
            batch,
            *self._embeddings(given, batch),
            effects=None if effects is None else _beside([EFFECTS], effects),
        )
        found = outputs.logits.view(candidates.shape).sigmoid()
        return found.masked_fill(candidates < 0, 0)

    def _embeddings(self, given: Given, batch: RequestBatch) -> list[KeyedTensor]:
        """As the collections of tables would return them, in the order of ``_batch``'s indices."""
        tables = self.network.spec.tables
        sources = [
            _beside(list(tables.request), given["requests"]),
            _beside(list(tables.item), given["items"]),
        ]
        if tables.impression:
            sources.append(_beside(list(tables.impression), given["impressions"].flatten(0, 1)))
        if tables.behaviour:
            newest = newest_of(given["behaviours"], self.newest)
            attributes = newest.in_order(newest.taken(given["behaviour_attributes"]))
            sources.append(_beside(list(tables.behaviour), attributes))
        return sources

    def _batch(self, given: Given) -> RequestBatch:
        """The batch that the network was trained on, of candidates that are all taken for real."""
        spec, candidates = self.network.spec, given["candidates"]
        count, most = candidates.shape
        slots = candidates.clamp(min=0).flatten()
        newest = newest_of(given["behaviours"], self.newest)
        behaviours = newest.in_order(newest.values).clamp(min=0)
        impressions = torch.arange(count * most)
        every = torch.arange(given["items"].shape[0])
        vectors, numbers = given.get("vectors"), given.get("target_numbers")
        search, made, further = self._compared(given)
        return RequestBatch(
            item_ids=None,
            features=None,
            raw_ids=None,
            item_index=torch.cat([every, slots]).int().expand(len(spec.tables.item), -1),
            candidates=slots.int(),
            request=(impressions // most).int(),
            candidate_offsets=torch.arange(count + 1) * most,
            behaviours=behaviours.int(),
            behaviour_offsets=newest.offsets,
            behaviour_attributes=torch.arange(behaviours.shape[0], dtype=torch.int32).expand(
                len(spec.tables.behaviour), -1
            ),
            most_candidates=most,
            most_behaviours=self.newest,
            vectors=vectors,
            vector_mask=given.get("has_vector"),
            search=search,
            made=made,
            labels=torch.zeros(count * most),
            loss_weight=torch.zeros(()),
            rows=torch.arange(count),
            impression_index=impressions.int().expand(len(spec.tables.impression), -1)
            if spec.tables.impression
            else None,
            request_numbers=given.get("request_numbers"),
            target_numbers=None if numbers is None else numbers.flatten(0, 1),
            sequences=further,
            target_vectors=None if vectors is None else vectors[slots],
        )

    def _compared(
        self, given: Given
    ) -> tuple[SearchResults | None, Tensor | None, tuple[FurtherBehaviours, ...]]:
        """What the search found of behaviours, what MAKE says, and the further sequences."""
        spec = self.network.spec
        sequences = given["sequences"].unbind(1) if spec.sequences else ()
        further = [newest_of(slots, self.newest) for slots in sequences]
        if not any(map(spec.has, ("simscore", "simtier", "make", "muse"))):
            return None, None, tuple(self._further(each, None) for each in further)
        newest = newest_of(given["behaviours"], self.newest)
        searches_all = spec.has("muse")
        # Columns of padding: there are then always as many behaviours as are to be kept.
        everything = F.pad(given["behaviours"], (0, spec.kept), value=-1)
        behaviours = everything if searches_all else newest.values
        compared = self._search(given, behaviours, spec.kept if searches_all else 0)
        others = [
            self._search(given, slots if searches_all else each.values, 0)
            for slots, each in zip(sequences, further, strict=True)
        ]
        made = self._made(given, compared, others) if spec.make else None
        of_further = tuple(map(self._further, further, others))
        return self._results(newest, compared), made, of_further

    def _search(self, given: Given, behaviours: Tensor, keep: int) -> Compared:
        spec, has_vector = self.network.spec, given["has_vector"]
        tiers = spec.num_tiers if spec.has("simtier") or spec.has("muse") else 0

        def rows(slots: Tensor) -> Tensor:
            return slots.masked_fill(~_known(slots, has_vector), -1)

        asked = rows(given["candidates"]), rows(behaviours)
        return Compared(
            behaviours, search_padded(given["vectors"], *asked, keep=keep, num_tiers=tiers)
        )

    def _results(self, newest: Newest, compared: Compared) -> SearchResults:
        spec, (behaviours, hits) = self.network.spec, compared
        keeps = spec.has("muse")
        places = hits.kept.long().flatten(1)
        kept = behaviours.gather(1, places).view(-1, spec.kept).clamp(min=0) if keeps else None
        return SearchResults(
            kept_index=None if kept is None else kept.int(),
            kept_length=hits.num_kept.flatten() if keeps else None,
            kept_cosine=hits.cosine.flatten(0, 1) if keeps else None,
            tiers=hits.tiers.flatten(0, 1) if hits.tiers.shape[-1] else None,
            cosine=pairs_in_order(hits.pairs, newest) if spec.has("simscore") else None,
        )

    def _further(self, newest: Newest, compared: Compared | None) -> FurtherBehaviours:
        tiers = cosine = None
        if compared is not None:
            hits = compared.hits
            tiers = hits.tiers.flatten(0, 1) if hits.tiers.shape[-1] else None
            if self.network.spec.has("simscore"):
                cosine = pairs_in_order(hits.pairs, newest)
        slots = newest.in_order(newest.values).clamp(min=0).int()
        return FurtherBehaviours(slots, newest.offsets, self.newest, tiers, cosine)

    def _made(self, given: Given, compared: Compared, others: list[Compared]) -> Tensor:
        """(I, M + hidden + 1): the mean of what the MAKEs of all folds say."""
        spec = self.network.spec
        assert spec.make is not None and self.network.make is not None  # asked for with it alone
        looked_at = [compared, *(others[spec.sequences.index(e)] for e in spec.make.sequences)]
        says = [_says(make, given, looked_at) for make in makes_in(self.network.make)]
        return torch.stack(says).mean(dim=0)


def _says(make: Make, given: Given, looked_at: list[Compared]) -> Tensor:
    """(I, M + hidden + 1) of one MAKE: interest, hidden layers, logit."""
    has_vector, candidates = given["has_vector"], given["candidates"]
    projected = make.project(unit_vectors(given["vectors"])) * has_vector[:, None]
    lists = [
        (projected[behaviours.clamp(min=0)], hits.pairs, _known(behaviours, has_vector))
        for behaviours, hits in looked_at
    ]
    (past, cosine, mask), *further = lists
    targets = projected[candidates.clamp(min=0)]
    said = make.score(targets, past, cosine, _known(candidates, has_vector), mask, further)
    return torch.cat([said.interest, *said.hidden, said.logit[..., None]], -1).flatten(0, 1)


def _known(slots: Tensor, has_vector: Tensor) -> Tensor:
    """Where a slot is real and its item has a vector."""
    return (slots >= 0) & has_vector[slots.clamp(min=0)]


def _beside(names: list[str], values: Tensor) -> KeyedTensor:
    """(n, F * E) embeddings of F features, or of one."""
    width = values.shape[1] // max(len(names), 1)
    return KeyedTensor(names, [width] * len(names), values)
