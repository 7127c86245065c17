"""One modality's encoder: a backbone and a projection head, some of it trained.

Shape letters: n inputs, F feature width, D item-vector width.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.backbone_weights import load_image_backbone, load_text_backbone
from torchrec_mm.pretraining.encoder.backbones import Backbone, ImageBackbone, TextBackbone
from torchrec_mm.pretraining.encoder.batch_norm import (
    SynchronisedBatchNorm,
    counted_rows,
    synchronise_batch_norms,
)
from torchrec_mm.pretraining.encoder.head import VECTOR_WIDTH, ProjectionHead
from torchrec_mm.pretraining.encoder.side import Inputs
from torchrec_mm.pretraining.encoder.tokeniser import Tokeniser

LOADERS: dict[str, Callable[[str], Backbone]] = {
    "image": load_image_backbone,
    "text": load_text_backbone,
}
FROZEN, SYNCHRONISED = "frozen", "synchronised"


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder is built from.

    modality: "image" or "text". backbone: a name that ``load_*_backbone`` knows.
    trainable_layers: the last layers of the backbone that are trained along with the head; 0 none,
    -1 all. image_size: height and width of pictures in pixels (kept for texts, unused).
    batch_norm: of the trainable layers, "frozen" or "synchronised", see ``batch_norm``. width: D.
    """

    modality: str
    backbone: str
    _: KW_ONLY
    trainable_layers: int
    image_size: int
    batch_norm: str = FROZEN
    width: int = VECTOR_WIDTH

    def __post_init__(self) -> None:
        """Refuse words that are not known."""
        check_fields(self, LOADERS.__contains__, "image or text", "modality")
        known = (FROZEN, SYNCHRONISED)
        check_fields(self, known.__contains__, "frozen or synchronised", "batch_norm")
        check_fields(self, lambda x: x >= 1, "at least 1", "width")


class Encoder(nn.Module):
    """Pictures or texts to unit vectors; all but the head and the trainable layers is frozen."""

    def __init__(self, backbone: Backbone, spec: EncoderSpec) -> None:
        """``backbone``: as ``spec`` names it, changed in place; InputError if of too few layers."""
        super().__init__()
        self.spec = spec
        self.backbone: Backbone = backbone.requires_grad_(False)
        layers = backbone.layers()
        if not -1 <= spec.trainable_layers <= len(layers):
            rule = f"trainable_layers must be in [-1, {len(layers)}], the layers of this backbone"
            raise InputError(f"{rule}, got {spec.trainable_layers}")
        count = len(layers) if spec.trainable_layers == -1 else spec.trainable_layers
        for layer in layers[len(layers) - count :]:
            for parameter in layer:
                parameter.requires_grad_(True)
        if spec.batch_norm == SYNCHRONISED:
            synchronise_batch_norms(backbone)
        self.head = ProjectionHead(feature_width(backbone), spec.width)

    def forward(self, inputs: Inputs, real: Tensor | None = None) -> Tensor:
        """Inputs to vectors.

        Args:
            inputs: pictures (n, 3, H, W) uint8, tokens of n texts, or n features of the backbone,
                (n, F) floating-point, which go to the head alone.
            real: (n,) bool, False for fillers, which synchronised norms leave out; None: no filler.

        Returns:
            (n, D) float32, unit length.
        """
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            return self.head(inputs)
        with counted_rows(real):
            features = self.backbone(inputs)
        return self.head(features)

    @property
    def backbone_is_frozen(self) -> bool:
        """True when features of the backbone may be computed once and kept."""
        return not any(parameter.requires_grad for parameter in self.backbone.parameters())

    @property
    def tokenise(self) -> Tokeniser:
        """Of texts."""
        assert isinstance(self.backbone, TextBackbone)
        return self.backbone.tokenise

    def trained_state(self) -> dict[str, Tensor]:
        """What training may change, by name: parameters, and statistics of synchronised norms."""
        state = {n: p.detach() for n, p in self.named_parameters() if p.requires_grad}
        for prefix, module in self.named_modules():
            if isinstance(module, SynchronisedBatchNorm):
                state |= dict(module.named_buffers(prefix, recurse=False))
        return state


def build_encoder(spec: EncoderSpec) -> Encoder:
    """The off-the-shelf encoder of ``spec`` with a head that is not fitted yet."""
    torch.manual_seed(0)  # the correction's first layer: the same on every rank and every run
    return Encoder(LOADERS[spec.modality](spec.backbone), spec)


@torch.no_grad()
def feature_width(backbone: Backbone) -> int:
    """F of a backbone, found by asking it for one feature."""
    if isinstance(backbone, ImageBackbone):
        inputs: Inputs = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    else:
        inputs = backbone.tokenise(["x"])
    return backbone.eval()(inputs).shape[1]
