"""Rankers on one device over the small market, every weight drawn so that every part matters."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torchrec.modules.embedding_modules import EmbeddingBagCollection

from tests.helpers.small_market import VECTOR_WIDTH, SmallMarket
from torchrec_mm.data.encode.encode import encode_folder
from torchrec_mm.data.encoded.encoded import EncodedItems, EncodedRequests, RequestArrays
from torchrec_mm.data.encoded.vocabulary import Vocabularies
from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.data.stream.vector_source import MappedVectors
from torchrec_mm.item_vectors.codes import Codebooks, code_tables
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.nn.make import Make
from torchrec_mm.ranking.collators import collator_for_ranker, with_codes
from torchrec_mm.ranking.frozen_make import FrozenMake, open_projected, project_vectors
from torchrec_mm.ranking.make import MakeSpec, makes_in
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import BagSpec, RankerSpec, TableSizes
from torchrec_mm.ranking.zero_collision import ZeroCollision, build_zero_collision_tables

MAKE = MakeSpec(vector_width=VECTOR_WIDTH, width=6, hidden=(5, 4), dropout=0.0)


@dataclass(frozen=True)
class Encoded:
    """Training requests of a market, encoded, and their vocabularies."""

    data: EncodedRequests
    arrays: RequestArrays
    vectors: ItemVectors
    vocabularies: Vocabularies

    def batch(
        self,
        rows: list[int],
        method: str = "simtier",
        zero_collision: Mapping[str, ZeroCollision] = {},
        make: Make | None = None,
    ) -> RequestBatch:
        """Some requests; the loss is the mean over their impressions.

        ``make``: that of the ranker; None: the one that ``ranker_of`` draws.
        """
        spec = replace(spec_of(method, self), zero_collision=zero_collision)
        vectors = MappedVectors(self.vectors) if spec.vector_width else None
        frozen = self.frozen(make or ranker_of(spec).network.make) if spec.make else None
        collator = collator_for_ranker(spec, self.items_of(spec), vectors, 50, frozen)
        share = self.arrays.take(np.array(rows))
        return collator(share, 1 / len(share.labels))

    def items_of(self, spec: RankerSpec) -> EncodedItems:
        """As the ranker's collator is given them."""
        if not spec.has("codes"):
            return self.data.items
        return with_codes(self.data.items, self.vectors, Codebooks.learn(self.vectors))

    def frozen(self, make: Make) -> FrozenMake:
        with tempfile.TemporaryDirectory() as folder:
            project_vectors(make, self.vectors, Path(folder, "projected.npy"))
            projected = open_projected(self.vectors, Path(folder, "projected.npy"))
            looked_at = range(len(makes_in(make)[0].further_attention))
            return FrozenMake(make, MappedVectors(projected), looked_at)


def encode(market: SmallMarket) -> Encoded:
    with tempfile.TemporaryDirectory() as folder:
        encoded = Path(folder, "encoded")
        encode_folder(market.data, ("train",), encoded, max_behaviours=50, min_count=2)
        data = EncodedRequests(encoded, "train")
        arrays = RequestArrays.concatenate([data.read(group) for group in data.groups])
        vocabularies = Vocabularies.load(encoded / "vocabularies.safetensors")
        return Encoded(data, arrays, ItemVectors.open(market.vectors), vocabularies)


def spec_of(method: str, encoded: Encoded) -> RankerSpec:
    codes = code_tables(encoded.vectors) if method == "codes" else {}
    tables = TableSizes.of(encoded.vocabularies, encoded.data.meta, method, codes)
    return RankerSpec(
        method=method,
        tables=tables,
        embedding_dim=4,
        hidden=(7, 5),
        num_tiers=6,
        vector_width=0 if method == "id" else VECTOR_WIDTH,
        base_rate=0.4,
        make=MAKE if "make" in method else None,
        behaviour_tables=("item_id", "shop_id", *encoded.data.items.bags),
        kept=3,
        request_numbers=tuple(encoded.data.meta.get("request_numbers", ())),
        target_numbers=(
            *encoded.data.meta.get("item_numbers", ()),
            *encoded.data.meta.get("impression_numbers", ()),
        ),
        bags={
            name: BagSpec(pooling=pooling, mean_length=encoded.data.meta["bag_lengths"][name])
            for name, pooling in encoded.vocabularies.pooling.items()
        },
        shared={n: table for n, table in encoded.vocabularies.tables.items() if n in tables.all},
        sequences=encoded.data.sequences,
    )


def ranker_of(spec: RankerSpec, seed: int = 0) -> Ranker:
    """The ranker with its tables on the CPU, all weights drawn from a normal distribution."""
    torch.manual_seed(seed)
    ranker = Ranker(spec)
    for name in ("item_id_tables", "feature_tables", "bag_tables", "summed_tables"):
        if getattr(ranker, name) is not None:
            configs = getattr(ranker, name).embedding_bag_configs()
            setattr(ranker, name, EmbeddingBagCollection(tables=configs))
    if spec.zero_collision:
        ranker.zero_collision_tables = build_zero_collision_tables(
            spec.zero_collision, spec.embedding_dim, "cpu"
        )
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.normal_(std=0.5)
    return ranker
