"""Further behaviour sequences in the network: carts, purchases, what was shown and passed over.

Each has weights of its own over the rows of items that all sequences share; which event it is, the
attention learns. None has attributes of its own, and muse's search looks at none of them.

Shape letters: R requests, I impressions, E width of an item, B width of the tables that muse
attends to, N tiers, Q sequences.
"""

from typing import Any

import torch
from torch import Tensor, nn

from torchrec_mm.data.stream.batches import FurtherBehaviours
from torchrec_mm.kernels.target_attention import target_attention
from torchrec_mm.nn.target_attention import TargetAttention
from torchrec_mm.ranking.parts import (
    Block,
    Joined,
    Part,
    attend_to_newest,
    attended_target,
    interest_blocks,
    tier_weights,
    weighted,
)
from torchrec_mm.ranking.scene import Scene
from torchrec_mm.ranking.spec import RankerSpec


class FurtherInterests:
    """``Interest`` of each further sequence: DIN's target attention, and how long it is."""

    def __init__(self, *, cosine: bool = False) -> None:
        self.cosine = cosine

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        width = spec.item_width
        network.further_attention = nn.ModuleList(
            TargetAttention(width, side_information=self.cosine) for _ in spec.sequences
        )
        of_each = [Block(width), Block(width), Block(1)] + [Block(1)] * self.cosine
        return of_each * len(spec.sequences)

    def join(self, network: Any, scene: Scene) -> Joined:
        blocks: list[Tensor] = []
        for unit, further in zip(network.further_attention, scene.batch.sequences, strict=True):
            lists = scene.batch.lists_of(further)
            cosine = further.cosine if self.cosine else None
            found = target_attention(unit, scene.targets, scene.slots, further.slots, lists, cosine)
            blocks += interest_blocks(scene, *found, length_of(further))
        return Joined(tuple(blocks))


class FurtherRecent:
    """``Recent`` of each further sequence: muse's attention over the newest, and their mean."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        width = spec.embedding_dim * len(spec.behaviour_tables)
        network.further_query = nn.ModuleList(
            nn.Linear(width, width, bias=False) for _ in spec.sequences
        )
        of_each = [Block(width), Block(width, of_request=True), Block(1, of_request=True)]
        return of_each * len(spec.sequences)

    def join(self, network: Any, scene: Scene) -> Joined:
        blocks: list[Tensor] = []
        target = attended_target(network.spec, scene)
        for query, further in zip(network.further_query, scene.batch.sequences, strict=True):
            lists = further.slots, further.offsets, further.most
            found = attend_to_newest(query(target), scene.slots, *lists, scene.batch.request)
            blocks += [*found, length_of(further)]
        return Joined(tuple(blocks))


class FurtherTiers:
    """``Tiers`` of each further sequence."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        count = len(spec.sequences)
        network.further_tier_weight = tier_weights(spec, count, spec.num_tiers)
        return [Block(spec.num_tiers)] * count

    def join(self, network: Any, scene: Scene) -> Joined:
        tiers = [further.tiers for further in scene.batch.sequences if further.tiers is not None]
        # The collator of this part searches all of them.
        counts = torch.stack(tiers, dim=1)
        return Joined(weighted(network.spec, counts, network.further_tier_weight).unbind(dim=1))


def length_of(further: FurtherBehaviours) -> Tensor:
    """(R, 1)."""
    return torch.log1p(further.offsets.diff().float())[:, None]


PARTS_OF_SEQUENCES: dict[str, tuple[Part, ...]] = {
    "id": (FurtherInterests(),),
    "vector": (FurtherInterests(),),
    "simscore": (FurtherInterests(cosine=True),),
    "simtier": (FurtherInterests(), FurtherTiers()),
    "make": (FurtherInterests(),),
    "simtier+make": (FurtherInterests(), FurtherTiers()),
    "codes": (FurtherInterests(),),
    "muse": (FurtherRecent(), FurtherTiers()),
}
