"""Sides of a batch from pictures and texts, for tests."""

import torch
from torch import Tensor

from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.side import Inputs, Side

FILLERS = {"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "text": ""}


def side_of(encoder: ItemEncoder, rows: list[dict[str, Tensor | str]]) -> Side:
    """Each row as {"image": (3, 32, 32) uint8, "text": words}, or a part of that."""
    inputs, at, mask = {}, {}, {}
    for modality in encoder.encoders:
        has = [modality in row for row in rows]
        given = [row[modality] for row in rows if modality in row] or [FILLERS[modality]]
        inputs[modality] = _inputs(encoder, modality, given)
        at[modality] = torch.tensor([i for i, h in enumerate(has) if h] or [len(rows)])
        mask[modality] = torch.tensor(has)
    ids = {space: torch.arange(len(rows)) for space in encoder.spaces}
    return Side(len(rows), inputs, at, mask, ids)


def _inputs(encoder: ItemEncoder, modality: str, given: list) -> Inputs:
    if modality == "image":
        return torch.stack(given)
    return encoder.encoders["text"].backbone.tokenise(given)
