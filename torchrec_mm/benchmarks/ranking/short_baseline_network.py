"""The network of the short benchmark's baseline: DIN on padded histories, all pairs alike.

Shape letters: I impressions, L behaviours, E width of an item's embeddings together.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from torchrec_mm.benchmarks.ranking.short_rows import HISTORY

UNIT_HIDDEN = 64
TABLE_STD = 1e-4


class PlainDIN(nn.Module):
    """Batches of JoinedRows to (I,) logits.

    Source: Zhou et al., KDD 2018, arXiv:1706.06978, as FuxiCTR has it: no softmax over the weights.
    """

    def __init__(
        self,
        num_rows: Mapping[str, int],
        columns: Iterable[str],
        width: int,
        hidden: tuple[int, ...],
    ) -> None:
        """Draw the weights.

        Args:
            num_rows: of each table, by its column. columns: of the rows.
            width: of each table. hidden: widths of the MLP's hidden layers.
        """
        super().__init__()
        self.items = [name for name in num_rows if HISTORY + name in columns]
        tables = {name: nn.Embedding(rows, width, padding_idx=0) for name, rows in num_rows.items()}
        for table in tables.values():
            nn.init.normal_(table.weight, std=TABLE_STD)
        self.tables = nn.ModuleDict(tables)
        item_width = width * len(self.items)
        self.unit = mlp(4 * item_width, (UNIT_HIDDEN,))
        self.mlp = mlp(width * len(num_rows) + item_width, hidden)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.mlp(torch.cat(self.blocks(batch), dim=-1)).squeeze(-1)

    def blocks(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """What the MLP reads side by side: the columns' embeddings, and the history's."""
        columns = {name: table(batch[name]) for name, table in self.tables.items()}
        target_IE = torch.cat([columns[name] for name in self.items], dim=-1)
        history_ILE = torch.cat(
            [self.tables[name](batch[HISTORY + name]) for name in self.items], dim=-1
        )
        mask_IL = batch[HISTORY + self.items[0]] != 0
        return [*columns.values(), self.interest(target_IE, history_ILE, mask_IL)]

    def interest(self, target: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """(I, E), (I, L, E) and (I, L) bool to (I, E): the history weighed by the target."""
        target = target[:, None].expand_as(history)
        pair = torch.cat([target, history, target - history, target * history], dim=-1)
        weights = self.unit(pair).squeeze(-1) * mask
        return torch.bmm(weights[:, None], history).squeeze(1)


def mlp(width: int, hidden: tuple[int, ...]) -> nn.Sequential:
    """(..., width) to (..., 1)."""
    layers: list[nn.Module] = []
    for each in hidden:
        layers += [nn.Linear(width, each), nn.ReLU()]
        width = each
    return nn.Sequential(*layers, nn.Linear(width, 1))
