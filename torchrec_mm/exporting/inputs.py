"""What a program is given: which inputs a ranker has, and a batch of the ranker's own as them.

Shape letters: as in program.py; Q features of impressions, A behaviour attributes, P numeric
features of a request, G of a candidate and its item, W width of users' effects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrec_mm.data.stream.batches import RequestBatch
from torchrec_mm.ranking.lookups import Lookups
from torchrec_mm.ranking.ranker import Ranker, looked_up
from torchrec_mm.ranking.spec import RankerSpec


@dataclass(frozen=True)
class Input:
    """One input: sizes by name or number, dtype as torch names it, and what it holds."""

    shape: tuple[str | int, ...]
    dtype: str
    holds: str

    @property
    def dynamic(self) -> dict[int, Any]:
        """For ``torch.export``: the dimensions that are free."""
        names = enumerate(self.shape)
        return {place: torch.export.Dim.DYNAMIC for place, n in names if isinstance(n, str)}


def inputs_of_spec(spec: RankerSpec, dtype: torch.dtype | None) -> dict[str, Input]:
    """By name, in order; ``dtype``: of the item vectors as they are stored, None without."""
    tables, width = spec.tables, spec.embedding_dim
    list_of = "slot of each {}, -1 for padding, which comes last"
    slots = {
        "candidates": Input(
            ("requests", "candidates"), "int64", list_of.format("candidate's item")
        ),
        "behaviours": Input(
            ("requests", "behaviours"), "int64", list_of.format("behaviour's item, oldest first")
        ),
    }
    if spec.sequences:
        holds = list_of.format("behaviour's item, oldest first, in each of sequences")
        sizes = ("requests", len(spec.sequences), "further_behaviours")
        slots["sequences"] = Input(sizes, "int64", holds)
    floats = {
        "requests": (("requests", width * len(tables.request)), "embeddings of request_features"),
        "items": (("slots", width * len(tables.item)), "embeddings of item_features"),
        "impressions": (
            ("requests", "candidates", width * len(tables.impression)),
            "embeddings of impression_features",
        ),
        "behaviour_attributes": (
            ("requests", "behaviours", width * len(tables.behaviour)),
            "embeddings of behaviour_features",
        ),
        "request_numbers": (
            ("requests", 2 * len(spec.request_numbers)),
            "request_numbers, normalised, 0 for null; then as many flags, 1 for null",
        ),
        "target_numbers": (
            ("requests", "candidates", 2 * len(spec.target_numbers)),
            "target_numbers, normalised, 0 for null; then as many flags, 1 for null",
        ),
        "effects": (("requests", spec.effects), "the user's row of the table user_effects"),
    }
    found = dict(slots)
    for name, (shape, holds) in floats.items():
        if shape[-1]:
            found[name] = Input(shape, "float32", holds)
    if dtype is not None:
        kind = str(dtype).removeprefix("torch.")
        found["vectors"] = Input(("slots", spec.vector_width), kind, "item vectors; 0 without one")
        found["has_vector"] = Input(("slots",), "bool", "whether the item has a vector")
    return found


@torch.no_grad()
def inputs_of(
    ranker: Ranker, batch: RequestBatch, wanted: Mapping[str, Input]
) -> dict[str, Tensor]:
    """The inputs that say what a batch of the ranker says, which holds all behaviours as slots.

    ``wanted``: of ``inputs_of_spec``.
    """
    spec, tables = ranker.network.spec, ranker.network.spec.tables
    embeddings, effects = looked_up(ranker, batch)
    lookups = Lookups.of(batch, spec, embeddings)
    candidates, behaviours = batch.candidate_offsets, batch.behaviour_offsets
    found = {
        "candidates": padded(batch.candidates.long(), candidates, -1),
        "behaviours": padded(batch.behaviours.long(), behaviours, -1),
        "requests": lookups.requests(),
        "items": lookups.items(tuple(tables.item), lookups.slots),
        "request_numbers": batch.request_numbers,
        "effects": None if effects is None else effects.values()[: batch.rows.shape[0]],
        "vectors": batch.vectors,
        "has_vector": batch.vector_mask,
    }
    if spec.sequences:
        further = [padded(each.slots.long(), each.offsets, -1) for each in batch.sequences]
        most = max(slots.shape[1] for slots in further)
        alike = [F.pad(slots, (0, most - slots.shape[1]), value=-1) for slots in further]
        found["sequences"] = torch.stack(alike, dim=1)
    of_impressions, numbers = lookups.of_impressions(), batch.target_numbers
    if of_impressions is not None:
        found["impressions"] = padded(of_impressions, candidates, 0)
    if numbers is not None:
        found["target_numbers"] = padded(numbers, candidates, 0)
    if tables.behaviour:
        bags = zip(tables.behaviour, batch.behaviour_attributes, strict=True)
        attributes = torch.cat([lookups.attribute(name)[bag.long()] for name, bag in bags], dim=1)
        found["behaviour_attributes"] = padded(attributes, behaviours, 0)
    chosen = {name: found[name] for name in wanted}
    return {name: each.contiguous() for name, each in chosen.items() if each is not None}


def padded(values: Tensor, offsets: Tensor, filler: int) -> Tensor:
    """Lists one after another, (T, ...), to (R, longest, ...)."""
    lengths = offsets.diff()
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    out = values.new_full((*real.shape, *values.shape[1:]), filler)
    out[real] = values
    return out
