"""Off-the-shelf encoders: a picture or a text to one feature vector.

Backbones always run in eval mode, also when they are trained: no dropout, and BatchNorm keeps its
stored statistics, so that ranks agree whatever pictures each one sees (ours). Only synchronised
norms, see ``batch_norm``, follow ``train``.

Shape letters: n inputs, T tokens, F feature width.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.activations import recompute_in_backward
from torchrec_mm.pretraining.encoder.batch_norm import SynchronisedBatchNorm
from torchrec_mm.pretraining.encoder.tokeniser import Tokeniser

BackboneT = TypeVar("BackboneT", bound="_Backbone")


class _Backbone(nn.Module):
    """What both kinds share. ``model`` is the library's module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model  # nn.Module's types know nothing of what a library adds

    def train(self: BackboneT, mode: bool = True) -> BackboneT:
        """Set the synchronised norms; the rest stays in eval mode."""
        super().train(False)
        for module in self.modules():
            if isinstance(module, SynchronisedBatchNorm):
                module.train(mode)
        return self

    def layers(self) -> list[list[nn.Parameter]]:
        """Parameters by layer, first layer first."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The modules that hold exactly one layer each, first layer first."""
        raise NotImplementedError

    def checkpoint_gradients(self) -> None:
        """Keep each block's inputs only for the backward pass, see ``activations``.

        Raises:
            InputError: the backbone has no blocks.
        """
        if not self.blocks():
            raise InputError("gradient_checkpointing must be off for a backbone without blocks")
        recompute_in_backward(self.blocks())

    def compile_model(self) -> None:
        """Let torch.compile fuse the model, for batches of any size; names of weights stay."""
        self.model.compile(dynamic=True)


class ImageBackbone(_Backbone):
    """Any timm model without its classifier: pictures to unit-length features."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module) -> None:
        """``model``: timm model with num_classes=0, carrying its own ``pretrained_cfg``."""
        super().__init__(model.to(memory_format=torch.channels_last))  # as pictures are decoded
        for name in ("mean", "std"):
            values = torch.tensor(self.model.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, H, W) uint8 RGB -> (n, F) float32, unit length."""
        normalised = (images.float() / 255 - self.mean) / self.std
        return F.normalize(self.model(normalised).float(), dim=1)

    def layers(self) -> list[list[nn.Parameter]]:
        """By timm's own grouping."""
        parameters = dict(self.model.named_parameters())
        return [[parameters[name] for name in names] for names in self._names_by_layer()]

    def blocks(self) -> list[nn.Module]:
        """Without what timm groups across modules, such as the stem."""
        prefixes = [_common_prefix(names) for names in self._names_by_layer()]
        return [self.model.get_submodule(prefix) for prefix in prefixes if prefix]

    def _names_by_layer(self) -> list[list[str]]:
        from timm.models import group_parameters

        groups = group_parameters(self.model, self.model.group_matcher(coarse=False))
        return [groups[layer] for layer in sorted(groups)]


class TextBackbone(_Backbone):
    """Any sentence-transformers model: texts to unit-length features.

    tokenise: the ``Tokeniser``, texts to tokens, to be sent to loading processes.
    """

    def __init__(self, model: nn.Module) -> None:
        """``model``: a SentenceTransformer."""
        super().__init__(model)
        self.tokenise = Tokeniser(self.model)

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """What ``tokenise`` gave for n texts -> (n, F) float32, unit length."""
        return F.normalize(self.model(dict(tokens))["sentence_embedding"].float(), dim=1)

    def layers(self) -> list[list[nn.Parameter]]:
        """Embeddings first, then the blocks.

        What follows the blocks (a pooler, a projection) belongs to the last layer.
        """
        blocks = self.blocks()
        block_of = {id(p): i + 1 for i, block in enumerate(blocks) for p in block.parameters()}
        groups: list[list[nn.Parameter]] = [[] for _ in range(len(blocks) + 1)]
        layer = 0
        for parameter in self.model.parameters():
            layer = block_of.get(id(parameter), layer)
            groups[layer].append(parameter)
        return groups

    def blocks(self) -> list[nn.Module]:
        """Those of the longest ModuleList."""
        stacks = [module for module in self.model.modules() if isinstance(module, nn.ModuleList)]
        return [*max(stacks, key=len)] if stacks else []


Backbone = ImageBackbone | TextBackbone


def _common_prefix(names: list[str]) -> str:
    """Module path that all parameter names share; "" if none."""
    shared = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)
