"""Rankers on one device over the small market, every weight drawn so that every part matters."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec_mm.data.encoding import EncodedRequests, encode_requests

from tests.small_market import VECTOR_WIDTH, SmallMarket
from torchrec_mm.data.batches import RequestBatch
from torchrec_mm.data.items import read_items
from torchrec_mm.data.loader import make_batch
from torchrec_mm.data.requests import read_requests
from torchrec_mm.data.vocabulary import Vocabularies, build_vocabularies
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.ranking.make import MakeSpec
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import RankerSpec, TableSizes

MAKE = MakeSpec(VECTOR_WIDTH, width=6, hidden=(5, 4), dropout=0.0)


@dataclass(frozen=True)
class Encoded:
    """Training requests of a market, encoded, and their vocabularies."""

    requests: EncodedRequests
    vocabularies: Vocabularies

    def batch(self, rows: list[int], with_vectors: bool = True) -> RequestBatch:
        """Some requests; the loss is the mean over their impressions."""
        rows = np.array(rows)
        impressions = self.requests.candidates.lengths[rows].sum()
        batch = make_batch(self.requests, rows, 1 / impressions)
        if not with_vectors:
            batch.vectors = batch.vector_mask = None
        return batch


def encode(market: SmallMarket) -> Encoded:
    folder: Path = market.data / "requests" / "train"
    requests, items = read_requests(folder, max_behaviours=50), read_items(market.data)
    vocabularies = build_vocabularies(requests, items, min_count=2)
    vectors = ItemVectors.open(market.vectors)
    return Encoded(encode_requests(requests, items, folder, vocabularies, vectors), vocabularies)


def spec_of(method: str, vocabularies: Vocabularies) -> RankerSpec:
    return RankerSpec(
        method=method,
        tables=TableSizes.of(vocabularies),
        embedding_dim=4,
        hidden=(7, 5),
        num_tiers=6,
        vector_width=0 if method == "id" else VECTOR_WIDTH,
        base_rate=0.4,
        make=MAKE if "make" in method else None,
    )


def ranker_of(spec: RankerSpec, seed: int = 0) -> Ranker:
    """The ranker with its tables on the CPU, all weights drawn from a normal distribution."""
    torch.manual_seed(seed)
    ranker = Ranker(spec)
    for name in ("request_tables", "item_tables"):
        configs = getattr(ranker, name).embedding_bag_configs()
        setattr(ranker, name, EmbeddingBagCollection(tables=configs))
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.normal_(std=0.5)
    return ranker
