"""Many rows of the packed content to vectors by the encoder as it is now, each rank its share.

Shape letters: R rows, D width of a space.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from torchrec_mm.parallel.process_group import Worker, gather_rows
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.precision import Precision
from torchrec_mm.pretraining.encoder.side import Side
from torchrec_mm.pretraining.pairs.pair_loader import as_it_is
from torchrec_mm.pretraining.pairs.side_reader import SideReader


@dataclass(frozen=True)
class SpaceVectors:
    """Vectors of R rows, by space.

    values: (R, D) float32, unit length, zeros where missing. mask: (R,) bool, True where present.
    """

    values: dict[str, Tensor]
    mask: dict[str, Tensor]


@torch.no_grad()
def encode_rows(
    encoder: ItemEncoder,
    reader: SideReader,
    rows: np.ndarray,
    worker: Worker,
    precision: Precision,
    *,
    batch_size: int,
    num_workers: int,
    label: str,
) -> SpaceVectors:
    """Encode (R,) int64 rows, R > 0. Collective; every rank gets all vectors, in order.

    Args:
        encoder: on the worker's device. reader: of the rows' content.
        batch_size: rows encoded at once. num_workers: processes that read ahead, as the loader's.
        label: what the progress bar says.
    """
    order = np.argsort(_text_lengths(reader, rows), kind="stable")  # alike lengths need no padding
    per_rank = -(-len(rows) // worker.world_size)
    share = np.resize(rows[order], per_rank * worker.world_size)[worker.rank :: worker.world_size]
    batches = DataLoader(
        _Batches(reader, share, batch_size),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=as_it_is,
    )
    values: dict[str, list[Tensor]] = {space: [] for space in encoder.spaces}
    masks: dict[str, list[Tensor]] = {space: [] for space in encoder.spaces}
    was_training = encoder.training
    encoder.eval()
    for side in tqdm(batches, label, unit="batch", disable=not worker.is_first, leave=False):
        here = side.to(worker.device)
        with precision.autocast():
            vectors = encoder(here)
        for space in encoder.spaces:
            values[space].append(vectors[space])
            masks[space].append(here.present(space))
    encoder.train(was_training)
    back = torch.from_numpy(np.argsort(order, kind="stable")).to(worker.device)

    def all_rows(shares: list[Tensor]) -> Tensor:
        by_rank = gather_rows(torch.cat(shares)).unflatten(0, (worker.world_size, per_rank))
        return by_rank.transpose(0, 1).flatten(0, 1)[: len(rows)][back]

    return SpaceVectors(
        {space: all_rows(shares) for space, shares in values.items()},
        {space: all_rows(shares) for space, shares in masks.items()},
    )


class _Batches(Dataset):
    """Sides of consecutive rows."""

    def __init__(self, reader: SideReader, rows: np.ndarray, batch_size: int) -> None:
        self.reader, self.rows, self.batch_size = reader, rows, batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, batch: int) -> Side:
        if batch >= len(self):
            raise IndexError(batch)
        start = batch * self.batch_size
        return self.reader.side(self.rows[start : start + self.batch_size])[0]


def _text_lengths(reader: SideReader, rows: np.ndarray) -> np.ndarray:
    """(R,) bytes of each row's text, equal numbers where there are none."""
    text = reader.packed.by_modality.get("text")
    return np.zeros(len(rows)) if text is None else text.lengths[rows]
