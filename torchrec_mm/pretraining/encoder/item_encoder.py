"""Items, queries and all that has a picture or a text: to vectors of every space.

Shape letters: R rows of a side, n inputs of one modality, D item-vector width.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from torchrec_mm.pretraining.encoder.encoder import Encoder, EncoderSpec, build_encoder
from torchrec_mm.pretraining.encoder.gate import ModalityGate
from torchrec_mm.pretraining.encoder.head import ProjectionHead
from torchrec_mm.pretraining.encoder.side import Side

MODALITIES = ("image", "text")
FUSED = "fused"


class ItemEncoder(nn.Module):
    """One encoder for each modality, and a gate where there are both.

    Fused vectors teach the gate alone: each modality learns as it would in a run of its own.

    spaces: ("image",), ("text",), or ("image", "text", "fused").
    """

    def __init__(self, encoders: Iterable[Encoder]) -> None:
        """``encoders``: one for each of one or two modalities."""
        super().__init__()
        by_modality = {encoder.spec.modality: encoder for encoder in encoders}
        in_order = {m: by_modality[m] for m in MODALITIES if m in by_modality}
        # A ModuleDict does not tell of what.
        self.encoders = cast(Mapping[str, Encoder], nn.ModuleDict(in_order))
        both = len(self.encoders) == len(MODALITIES)
        torch.manual_seed(1)  # the gate's first layer: the same on every rank and every run
        widths = [encoder.spec.width for encoder in self.encoders.values()]
        self.gate = ModalityGate(widths) if both else None
        self.spaces = (*self.encoders, FUSED) if both else tuple(self.encoders)

    @property
    def specs(self) -> dict[str, EncoderSpec]:
        """What each encoder is built from, by modality."""
        return {modality: encoder.spec for modality, encoder in self.encoders.items()}

    @property
    def widths(self) -> dict[str, int]:
        """Of each space's vectors."""
        widths = {m: part.head.projection.out_features for m, part in self.encoders.items()}
        return widths if self.gate is None else widths | {FUSED: sum(widths.values())}

    def forward(self, side: Side) -> dict[str, Tensor]:
        """(R, width) float32 by space of a side's rows: unit length, zeros where missing."""
        vectors = {modality: self._encode(modality, side) for modality in self.encoders}
        if self.gate is not None:
            mask = torch.stack([side.mask[modality] for modality in self.encoders], dim=1)
            parts = [values.detach() for values in vectors.values()]
            vectors[FUSED] = self.gate(parts, mask)
        return vectors

    def trained_state(self) -> dict[str, Tensor]:
        """What training may change, by name: see ``Encoder.trained_state``; and the gate."""
        state: dict[str, Tensor] = {}
        for modality, encoder in self.encoders.items():
            prefix = f"encoders.{modality}."
            state |= {prefix + name: value for name, value in encoder.trained_state().items()}
        if self.gate is not None:
            state |= {f"gate.{name}": p.detach() for name, p in self.gate.named_parameters()}
        return state

    def with_all_features(self) -> "ItemEncoder":
        """The same backbones as they are now, shared, and untrained heads as wide as features.

        While backbones are untrained, this is the off-the-shelf encoder without loss.
        """
        shared = {id(part.backbone): part.backbone for part in self.encoders.values()}
        whole = copy.deepcopy(self, shared)
        for part in whole.encoders.values():
            width = part.head.projection.in_features
            part.head = ProjectionHead(width, width).to(part.head.projection.weight.device)
        if whole.gate is not None:
            widths = [part.head.projection.out_features for part in whole.encoders.values()]
            device = next(whole.gate.parameters()).device
            whole.gate = ModalityGate(widths).to(device)
        return whole

    def checkpoint_gradients(self) -> None:
        """Less memory and more work in the backward pass, see ``activations``."""
        for encoder in self.encoders.values():
            encoder.backbone.checkpoint_gradients()

    def compile_backbones(self) -> None:
        """Let torch.compile fuse the backbones. A copy of this module has to be told again."""
        for encoder in self.encoders.values():
            encoder.backbone.compile_model()

    def _encode(self, modality: str, side: Side) -> Tensor:
        rows = side.rows[modality]
        encoded = self.encoders[modality](side.inputs[modality], rows < side.num_rows)
        placed = encoded.new_zeros(side.num_rows + 1, encoded.shape[1])
        return placed.index_copy(0, rows, encoded)[:-1]  # without the row of the fillers


def build_item_encoder(specs: Iterable[EncoderSpec]) -> ItemEncoder:
    """Off-the-shelf encoders, one for each modality, with heads that are not fitted yet."""
    return ItemEncoder(build_encoder(spec) for spec in specs)
