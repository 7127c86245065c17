"""MAKE: a click model that sees nothing but item vectors, trained for several epochs apart.

Shape letters: R requests, C candidates, L behaviours, D item-vector width, M model width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.nn.masks import check_mask
from torchrec_mm.nn.mlp import MLP
from torchrec_mm.nn.simtier import cosine_similarity
from torchrec_mm.nn.target_attention import TargetAttention


class MakeFeatures(NamedTuple):
    """What an ID model takes over from MAKE; zeros where the candidate has no vector.

    interest: (R, C, M) v_MAKE, to concatenate to the other inputs. hidden: each hidden layer of
    the MLP, (R, C, hidden[i]), which join the ID model's as ``MLP`` does. logit: (R, C), to add.

    >>> empty = MakeFeatures(torch.zeros(2, 1, 8), [torch.zeros(2, 1, 4)], torch.zeros(2, 1))
    >>> empty.interest.shape
    torch.Size([2, 1, 8])
    """

    interest: Tensor
    hidden: list[Tensor]
    logit: Tensor


class Make(nn.Module):
    """Multimodal Knowledge Extractor: DIN over item vectors instead of ID embeddings.

    A projection of the vectors, target attention over the behaviours that have one, a small MLP.
    Of further sequences, as of what was passed over, an attention of their own tells the cosine.
    It has no ID to memorise, so it keeps improving for several epochs, where an ID model
    overfits from the second: train it apart on ``logit``, freeze it, give its features to the
    ID model.

    Source: Sheng et al., CIKM 2024, arXiv:2407.19467, "MAKE", step (a). Ours: the cosine of each
    pair joins the activation unit, and the projected vectors are dropped out. The ID model meets
    MAKE on the very clicks it was trained on, so what MAKE learned by heart would be believed.

    >>> make = Make(vector_width=4, width=8, hidden=(6, 5))
    >>> features = make(
    ...     torch.randn(2, 1, 4),
    ...     torch.randn(2, 7, 4),
    ...     torch.tensor([[True], [False]]),
    ...     torch.ones(2, 7, dtype=torch.bool),
    ... )
    >>> [features.interest.shape, features.logit[1].item()]
    [torch.Size([2, 1, 8]), 0.0]
    """

    def __init__(
        self,
        *,
        vector_width: int,
        width: int,
        hidden: Sequence[int],
        dropout: float = 0.0,
        sequences: int = 0,
    ) -> None:
        """Draw the weights.

        Args:
            vector_width: D. width: M.
            hidden: widths of the MLP's hidden layers.
            dropout: of the projected vectors in training, in [0, 1].
            sequences: Q, further ones besides the behaviours.
        """
        super().__init__()
        # A unit vector has entries near D ** -0.5; the network likes them near 1.
        self.scale = vector_width**0.5
        self.projection = nn.Linear(vector_width, width)
        self.dropout = nn.Dropout(dropout)
        self.attention = TargetAttention(width, side_information=True)
        self.mlp = MLP(3 * width + 1 + sequences, hidden)
        self.further_attention = nn.ModuleList(
            TargetAttention(width, side_information=True) for _ in range(sequences)
        )

    def forward(
        self,
        targets: Tensor,
        behaviours: Tensor,
        target_mask: Tensor,
        behaviour_mask: Tensor,
        further: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> MakeFeatures:
        """Score every candidate from vectors alone.

        Args:
            targets: (R, C, D) float of any length, finite also where there is no vector.
            behaviours: (R, L, D) float, likewise.
            target_mask: (R, C) bool, True where the candidate is real and has a vector.
            behaviour_mask: (R, L) bool, likewise.
            further: behaviours and mask of each further sequence, each of a length of its own.

        Raises:
            ValueError: shapes do not go together, a mask is not bool, or ``further`` are not Q.
        """
        check_mask("target_mask", target_mask, targets.shape[:-1])
        lists = [(behaviours, behaviour_mask), *further]
        compared = [
            (self.project(F.normalize(past, dim=-1)), cosine_similarity(targets, past), mask)
            for past, mask in lists
        ]
        (past, cosine, mask), *others = compared
        projected = self.project(F.normalize(targets, dim=-1))
        return self.score(projected, past, cosine, target_mask, mask, others)

    def project(self, vectors: Tensor) -> Tensor:
        """(..., D) unit vectors to (..., M): a function of one item, so once an item will do."""
        return self.dropout(self.projection(vectors * self.scale))

    def score(
        self,
        targets: Tensor,
        behaviours: Tensor,
        cosine: Tensor,
        target_mask: Tensor,
        behaviour_mask: Tensor,
        further: Sequence[tuple[Tensor, Tensor, Tensor]] = (),
    ) -> MakeFeatures:
        """``forward`` for vectors that are projected, (R, C, M) and (R, L, M), already.

        ``cosine``: (R, C, L) of the vectors before; may hold anything where either has none.
        ``further``: behaviours, cosine and mask of each further sequence.
        """
        lists = [(behaviours, cosine, behaviour_mask), *further]
        first, *others = (
            attention(targets, past, mask, side, target_mask[:, :, None] & mask[:, None])
            for attention, (past, side, mask) in zip(self.attentions, lists, strict=True)
        )
        pooled = torch.cat([first, *(of_other[..., -1:] for of_other in others)], dim=-1)
        return self.judge(targets, pooled, target_mask)

    @property
    def attentions(self) -> list[TargetAttention]:
        """Of the behaviours, and of each further sequence."""
        units = [self.attention, *self.further_attention]
        return [unit for unit in units if isinstance(unit, TargetAttention)]

    def judge(self, targets: Tensor, pooled: Tensor, target_mask: Tensor) -> MakeFeatures:
        """The rest of ``score``, of candidates one by one.

        Args:
            targets: (..., M) projected.
            pooled: (..., M + 1 + Q), interest, and the mean cosine of each sequence.
            target_mask: (...) bool, True where the candidate is real and has a vector.
        """
        interest = pooled[..., : targets.shape[-1]]
        logit, hidden = self.mlp(torch.cat([targets, pooled, targets * interest], dim=-1))
        # Zeros, not what the bias makes of no vector: the ID model is to go by the IDs alone.
        unknown = ~target_mask
        return MakeFeatures(
            interest.masked_fill(unknown[..., None], 0),
            [layer.masked_fill(unknown[..., None], 0) for layer in hidden],
            logit.masked_fill(unknown, 0),
        )
