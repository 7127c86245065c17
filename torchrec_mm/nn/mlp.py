"""A multilayer perceptron whose hidden layers can be seen, and joined by another's."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with SiLU, ending in one logit.

    Another network's hidden layers can join: layer i then reads the concatenation of its own
    input and the companion's hidden layer before it, and the logits add up.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467, how MAKE joins the ID model.

    >>> logit, hidden = MLP(5, (4, 3), companion_hidden=(2, 6))(
    ...     torch.randn(7, 5), companion=[torch.randn(7, 2), torch.randn(7, 6)]
    ... )
    >>> [logit.shape, *(layer.shape for layer in hidden)]
    [torch.Size([7]), torch.Size([7, 4]), torch.Size([7, 3])]
    """

    def __init__(
        self, width: int, hidden: Sequence[int], companion_hidden: Sequence[int] = ()
    ) -> None:
        """Build the layers.

        Args:
            width: of the input. hidden: of each hidden layer.
            companion_hidden: widths of the hidden layers that join, empty or as many as ``hidden``.

        Raises:
            ValueError: they are neither.
        """
        super().__init__()
        if companion_hidden and len(companion_hidden) != len(hidden):
            raise ValueError(
                f"companion_hidden must be as many as hidden, {len(hidden)}, "
                f"got {len(companion_hidden)}"
            )
        widths = [width, *hidden]
        joined = [0, *companion_hidden] if companion_hidden else [0] * len(widths)
        # Both lists have one more than hidden: what the logit reads.
        self.layers = nn.ModuleList(
            nn.Linear(w + j, h) for w, j, h in zip(widths, joined, hidden, strict=False)
        )
        self.logit = nn.Linear(widths[-1] + joined[-1], 1)

    def forward(
        self,
        x: Tensor,
        companion: Sequence[Tensor] | None = None,
        addend: Tensor | None = None,
        first_weight: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Score a batch.

        Args:
            x: (..., width) float.
            companion: hidden layers that join, each (..., companion_hidden[i]); None if the MLP
                was built without.
            addend: (..., hidden[0]) float added to the first layer before its activation: a part
                of the input that many rows share, multiplied once elsewhere; None for nothing.
            first_weight: (hidden[0], w) columns of the first layer's weight that ``x``, then
                (..., w), is multiplied by, where the others went into ``addend``; None for all.

        Returns:
            (...) float logit, and this MLP's own hidden layers.
        """
        hidden = []
        for i, layer in enumerate(self.layers):
            if i == 0 and first_weight is not None:
                assert isinstance(layer, nn.Linear)  # as all of them are
                x = nn.functional.linear(x, first_weight, layer.bias)
            else:
                x = layer(_joined(x, companion, i))
            if i == 0 and addend is not None:
                x = x + addend
            x = nn.functional.silu(x)
            hidden.append(x)
        return self.logit(_joined(x, companion, len(self.layers))).squeeze(-1), hidden


def _joined(x: Tensor, companion: Sequence[Tensor] | None, layer: int) -> Tensor:
    return x if companion is None or layer == 0 else torch.cat([x, companion[layer - 1]], dim=-1)
