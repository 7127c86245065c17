"""Sides of a batch from pictures and texts, for tests."""

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.pretraining.encoder import side
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.side import Inputs, Side

FILLERS = {"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "text": ""}


def side_of(encoder: ItemEncoder, rows: list[dict[str, Tensor | str]]) -> Side:
    """Each row as {"image": (3, 32, 32) uint8, "text": words}, or a part of that."""
    inputs, places = {}, {}
    for modality in encoder.encoders:
        places[modality] = np.array([i for i, row in enumerate(rows) if modality in row], np.int64)
        given = [rows[i][modality] for i in places[modality]] or [FILLERS[modality]]
        inputs[modality] = _inputs(encoder, modality, given)
    ids = {space: torch.arange(len(rows)) for space in encoder.spaces}
    return side.side_of(len(rows), inputs, places, ids)


def _inputs(encoder: ItemEncoder, modality: str, given: list) -> Inputs:
    if modality == "image":
        return torch.stack(given)
    return encoder.encoders["text"].backbone.tokenise(given)
