"""How item vectors and past behaviour join the ID model: a method is a list of parts.

A part puts its weights on the network itself, under the names that checkpoints have, and says how
wide the blocks are that it will add to the input of the MLP. Of each batch it then gives these.

Shape letters: R requests, I impressions, S item slots, E width of an item, B width of the tables
that muse attends to, D item-vector width, N tiers, M width of MAKE.
"""

from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.kernels.gathered_attention import gathered_attention
from torchrec_mm.kernels.target_attention import padded_places, target_attention
from torchrec_mm.nn.target_attention import TargetAttention
from torchrec_mm.ranking.make import unit_vectors
from torchrec_mm.ranking.scene import Scene
from torchrec_mm.ranking.spec import RankerSpec


class Block(NamedTuple):
    """Columns of the MLP's input.

    of_request: the same for all impressions of a request. embeddings: how many of them, the first,
    are embeddings whose first columns are biases.
    """

    width: int
    of_request: bool = False
    embeddings: int = 0

    def first_order(self, embedding_dim: int) -> Tensor:
        """(width,) float, 1 where a column is the bias of an embedding, else 0."""
        columns = torch.zeros(self.width)
        columns[: self.embeddings : embedding_dim] = 1
        return columns


Columns: TypeAlias = Tensor | tuple[Tensor, ...]  # in one, or in several side by side


class Joined(NamedTuple):
    """What a part gives of one batch.

    blocks: (R, w) of a request or (I, w), as ``build`` has promised them.
    logit: (I,) to be added to the network's. companion: hidden layers that join the MLP's.
    """

    blocks: tuple[Columns, ...] = ()
    logit: Tensor | None = None
    companion: tuple[Tensor, ...] | None = None


class Part(Protocol):
    """``network`` is the module that holds the weights of all parts."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]: ...

    def join(self, network: Any, scene: Scene) -> Joined: ...


class Request:
    """User and context: their embeddings, and their numbers with a flag for null beside each."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        width = spec.embedding_dim * len(spec.tables.request)
        embeddings = Block(width, of_request=True, embeddings=width)
        numbers = Block(2 * len(spec.request_numbers), of_request=True)
        return [embeddings, numbers] if numbers.width else [embeddings]

    def join(self, network: Any, scene: Scene) -> Joined:
        return Joined((scene.requests, *given(scene.batch.request_numbers)))


class Vector:
    """The item vector, projected, beside the ID embeddings of an item wherever it occurs."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        network.vector_projection = nn.Linear(spec.vector_width, 2 * spec.embedding_dim)
        return []

    def join(self, network: Any, scene: Scene) -> Joined:
        vectors, known = scene.batch.vectors, scene.batch.vector_mask
        assert vectors is not None and known is not None  # the collator of this part has them
        # A unit vector has entries near D ** -0.5; the network likes them near 1.
        projected = network.vector_projection(unit_vectors(vectors) * vectors.shape[1] ** 0.5)
        projected = projected * known[:, None]
        at_targets = F.embedding(scene.batch.candidates, projected)
        scene.targets = torch.cat([scene.targets, at_targets], dim=1)
        if scene.index is scene.batch.behaviours:
            scene.rows = scene.slots = torch.cat([scene.slots, projected], dim=1)
            return Joined()
        if scene.batch.sequences:
            scene.slots = torch.cat([scene.slots, projected], dim=1)
        # A row is not a slot, but a behaviour.
        of_behaviours = F.embedding(scene.batch.behaviours, projected)
        scene.rows = torch.cat([scene.rows, of_behaviours], dim=1)
        return Joined()


class Target:
    """The impression's item and its own features, and numbers of both with flags for null."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        width = spec.embedding_dim * len(spec.tables.item)
        embeddings = Block(spec.item_width, embeddings=width)
        own = spec.embedding_dim * len(spec.tables.impression)
        further = [Block(own, embeddings=own), Block(2 * len(spec.target_numbers))]
        return [embeddings, *(block for block in further if block.width)]

    def join(self, network: Any, scene: Scene) -> Joined:
        own, numbers = scene.lookups.of_impressions(), scene.batch.target_numbers
        return Joined((scene.targets, *given(own), *given(numbers)))


class Interest:
    """DIN's target attention over the newest behaviours.

    Ours: target * interest, and the length of the history, which every method sees so that a
    histogram earns nothing by merely counting behaviours. With ``cosine`` that of each pair joins
    the activation unit, and its mean the input.
    """

    def __init__(self, *, cosine: bool = False) -> None:
        self.cosine = cosine

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        width = spec.item_width
        network.attention = TargetAttention(width, side_information=self.cosine)
        return [Block(width), Block(width), Block(1)] + [Block(1)] * self.cosine

    def join(self, network: Any, scene: Scene) -> Joined:
        cosine = None
        if self.cosine:
            assert scene.batch.search is not None  # the collator of this part searches
            cosine = scene.batch.search.cosine
        found = target_attention(
            network.attention, scene.targets, scene.rows, scene.index, scene.batch.lists, cosine
        )
        return Joined(interest_blocks(scene, *found, history_length(scene)))


def interest_blocks(
    scene: Scene, interest: Tensor, mean_cosine: Tensor | None, length: Tensor
) -> tuple[Tensor, ...]:
    """The blocks of ``Interest``, of what ``target_attention`` gave and the (R, 1) ``length``."""
    blocks = (interest, scene.targets * interest, scene.at_impressions(length))
    return blocks if mean_cosine is None else (*blocks, mean_cosine[:, None])


class Tiers:
    """SimTier: the histogram of cosines, their logarithms weighted.

    Counts grow with the history, their logarithms stay in the range of the other inputs.
    """

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        network.tier_weight = tier_weights(spec, spec.num_tiers)
        return [Block(spec.num_tiers)]

    def join(self, network: Any, scene: Scene) -> Joined:
        search = scene.batch.search
        assert search is not None and search.tiers is not None  # the collator of this part searches
        return Joined((weighted(network.spec, search.tiers, network.tier_weight),))


def tier_weights(spec: RankerSpec, *shape: int) -> nn.Parameter:
    """Ones, to be learned unless they are left out."""
    is_learned = "simtier_weights" not in spec.left_out
    return nn.Parameter(torch.ones(shape), requires_grad=is_learned)


def weighted(spec: RankerSpec, tiers: Tensor, weights: Tensor) -> Tensor:
    """Logarithms of counts, or the counts, each tier by its weight."""
    is_raw = "simtier_logarithm" in spec.left_out
    return (tiers if is_raw else torch.log1p(tiers)) * weights


class FrozenFeatures:
    """MAKE: its interest vector, its hidden layers beside the MLP's, its logit."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        assert spec.make is not None  # a method with this part has it
        return [] if "make_interest" in spec.left_out else [Block(spec.make.width)]

    def join(self, network: Any, scene: Scene) -> Joined:
        made, spec = scene.batch.made, network.spec
        assert made is not None  # the collator of this part makes them
        widths = [spec.make.width, *spec.make.hidden, 1]
        interest, *hidden, logit = made.split(widths, dim=1)
        return Joined(
            () if "make_interest" in spec.left_out else (interest,),
            None if "make_logit" in spec.left_out else logit[:, 0],
            tuple(hidden) if companion_widths(spec) else None,
        )


def companion_widths(spec: RankerSpec) -> tuple[int, ...]:
    """Of MAKE's hidden layers where they join the MLP's."""
    return spec.make.hidden if spec.make and "make_hidden" not in spec.left_out else ()


class Recent:
    """muse: attention over the newest behaviours, scored by dot product, and their mean."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        width = spec.embedding_dim * len(spec.behaviour_tables)
        network.recent_query = nn.Linear(width, width, bias=False)
        return [Block(width), Block(width, of_request=True), Block(1, of_request=True)]

    def join(self, network: Any, scene: Scene) -> Joined:
        batch = scene.batch
        query = network.recent_query(attended_target(network.spec, scene))
        lists = batch.behaviours, batch.behaviour_offsets, batch.most_behaviours
        found = attend_to_newest(query, scene.rows, *lists, batch.request)
        return Joined((*found, history_length(scene)))


def attend_to_newest(
    query: Tensor,
    rows: Tensor,
    behaviours: Tensor,
    offsets: Tensor,
    most: int,
    request: Tensor,
) -> tuple[Tensor, Tensor]:
    """Each impression's attention, and each request's mean.

    Args:
        query: (I, B). rows: (n, B). behaviours: (T,) int32 places in them.
        offsets: (R + 1,) int64. most: behaviours a request. request: (I,) of each impression.
    """
    places, _ = padded_places(offsets, most)
    return gathered_attention(
        query,
        rows,
        behaviours[places] if behaviours.shape[0] else places.int(),
        offsets.diff().int(),
        request=request,
    )


class Kept:
    """muse: attention over what the search kept, scored by SA-TA, which mixes in the cosine."""

    def build(self, network: Any, spec: RankerSpec) -> list[Block]:
        width = spec.embedding_dim * len(spec.behaviour_tables)
        network.kept_query = nn.Linear(width, width, bias=False)
        network.mix = nn.Parameter(torch.ones(3))
        return [Block(width), Block(width)]

    def join(self, network: Any, scene: Scene) -> Joined:
        search = scene.batch.search
        # The collator of this part searches.
        assert search is not None and search.kept_index is not None
        assert search.kept_length is not None
        return Joined(
            gathered_attention(
                network.kept_query(attended_target(network.spec, scene)),
                scene.rows,
                search.kept_index,
                search.kept_length,
                cosine=search.kept_cosine,
                mix=network.mix,
            )
        )


def attended_target(spec: RankerSpec, scene: Scene) -> Tensor:
    """(I, B) of each impression's item, the columns that behaviours have."""
    if len(spec.behaviour_tables) == len(spec.tables.item):
        return scene.targets
    return scene.lookups.items(spec.behaviour_tables, scene.lookups.impressions)


def given(columns: Tensor | None) -> tuple[Tensor, ...]:
    """A block of what a batch may have, or none."""
    return () if columns is None else (columns,)


def history_length(scene: Scene) -> Tensor:
    """(R, 1)."""
    return torch.log1p(scene.num_behaviours())[:, None]


PARTS: dict[str, tuple[Part, ...]] = {
    "id": (Request(), Target(), Interest()),
    "vector": (Request(), Vector(), Target(), Interest()),
    "simscore": (Request(), Target(), Interest(cosine=True)),
    "simtier": (Request(), Target(), Interest(), Tiers()),
    "make": (Request(), Target(), Interest(), FrozenFeatures()),
    "simtier+make": (Request(), Target(), Interest(), Tiers(), FrozenFeatures()),
    "codes": (Request(), Target(), Interest()),
    "muse": (Request(), Target(), Recent(), Kept(), Tiers()),
}
