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

    @property
    def first(self) -> nn.Linear:
        """What reads the input: the first layer, or the logit where there are no hidden ones."""
        layer = self.layers[0] if len(self.layers) else self.logit
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(
        self, x: Tensor, companion: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Score a batch.

        Args:
            x: (..., width) float.
            companion: hidden layers that join, each (..., companion_hidden[i]); None if the MLP
                was built without.

        Returns:
            (...) float logit, and this MLP's own hidden layers.
        """
        return self.rest(self.first(x), companion)

    def rest(
        self, first: Tensor, companion: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """``forward`` from what the first layer gives on, before its activation.

        For an input of which many rows share a part: that is multiplied once, elsewhere.

        ``first``: (..., hidden[0]) float, or (..., 1) without hidden layers.
        """
        if not len(self.layers):
            return first.squeeze(-1), []
        x = nn.functional.silu(first)
        hidden = [x]
        for i, layer in enumerate(self.layers[1:], start=1):
            x = nn.functional.silu(layer(_joined(x, companion, i)))
            hidden.append(x)
        return self.logit(_joined(x, companion, len(self.layers))).squeeze(-1), hidden


def _joined(x: Tensor, companion: Sequence[Tensor] | None, layer: int) -> Tensor:
    return x if companion is None else torch.cat([x, companion[layer - 1]], dim=-1)
