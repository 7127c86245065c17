"""Training pairs to this rank's share of every global batch, read ahead by worker processes.

What step s of an epoch holds follows from seed, epoch and s alone, so a run goes on at any step,
under any number of ranks. Shape letters: B pairs of this rank, P pairs, H hard-negative slots.
"""

import signal
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from torchrec_mm.errors import InputError
from torchrec_mm.pretraining.encoder.side import PairBatch
from torchrec_mm.pretraining.pairs.pairs import Pairs, PairSet, epoch_order, rank_share
from torchrec_mm.pretraining.pairs.side_reader import SideReader

BATCHES_AHEAD = 2  # of each worker process


@dataclass(frozen=True, kw_only=True)
class LoaderSettings:
    """How pairs are read.

    batch_size: pairs of a global batch, a multiple of the number of ranks. seed: of the order and
    of augmentation. hard: whether hard negatives are read. augment: whether the pictures of queries
    are cropped, flipped and coloured anew each time. num_workers: processes that read ahead; with
    0 this one reads, when a batch is asked for.
    """

    batch_size: int
    seed: int
    hard: bool = True
    augment: bool = False
    num_workers: int = 0


class PairLoader:
    """This rank's batches of a run."""

    def __init__(
        self,
        pairs: Pairs,
        reader: SideReader,
        settings: LoaderSettings,
        *,
        rank: int,
        world_size: int,
        pin_memory: bool = False,
    ) -> None:
        """All ranks build it, equal but for ``rank``; InputError if batches fit no pairs, ranks."""
        batch_size = settings.batch_size
        if batch_size % world_size:
            rule = f"batch_size must be a multiple of the {world_size} processes"
            raise InputError(f"{rule}, got {batch_size}")
        self.steps_per_epoch = len(pairs.of_epoch(epoch=0, seed=settings.seed)) // batch_size
        if not self.steps_per_epoch:
            rule = f"batch_size must be at most the {len(pairs)} pairs to train on"
            raise InputError(f"{rule}, got {batch_size}")
        self.settings, self.pin_memory = settings, pin_memory
        self._steps = _Steps(pairs, reader, settings, rank=rank, world_size=world_size)

    def batches(self, epochs: int, first_step: int = 0) -> Iterator[PairBatch]:
        """The batches that are left of a run of ``epochs``, ``first_step`` of them done."""
        steps = range(first_step, epochs * self.steps_per_epoch)
        workers = self.settings.num_workers
        return iter(
            DataLoader(
                self._steps,
                sampler=[divmod(step, self.steps_per_epoch) for step in steps],
                batch_size=None,
                num_workers=workers,
                collate_fn=as_it_is,
                pin_memory=self.pin_memory,
                prefetch_factor=BATCHES_AHEAD if workers else None,
                worker_init_fn=_outlive_sigterm,
            )
        )


def _outlive_sigterm(_: int) -> None:
    """In a worker: a scheduler's SIGTERM is for the rank, which may need batches until it stops."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def as_it_is(batch: Any) -> Any:
    """For DataLoader, which would look into a batch that is whole already."""
    return batch


@dataclass(eq=False)
class _Steps(Dataset):
    """Batches by (epoch, step of it); sent to the worker processes."""

    pairs: Pairs
    reader: SideReader
    settings: LoaderSettings
    _: KW_ONLY
    rank: int
    world_size: int
    _epoch: tuple[int, PairSet, np.ndarray] | None = None

    def __getitem__(self, at: tuple[int, int]) -> PairBatch:
        epoch, step = at
        pairs, order = self._of_epoch(epoch)
        rows = rank_share(
            order,
            step=step,
            batch_size=self.settings.batch_size,
            rank=self.rank,
            world_size=self.world_size,
        )
        seeds = _seeds(self.settings.seed, epoch, rows) if self.settings.augment else None
        hard = pairs.hard[rows]
        if not self.settings.hard:
            hard = hard[:, :0]
        query, of_queries = self.reader.side(pairs.queries[rows], seeds)
        key, of_keys = self.reader.side(pairs.keys[rows])
        negative, of_negatives = self.reader.side(hard.ravel())
        pictures, corrupt = (of_queries + of_keys + of_negatives).tolist()
        return PairBatch(
            query,
            key,
            negative,
            num_hard=hard.shape[1],
            relevant=self._relevant(pairs, pairs.queries[rows]),
            pictures=pictures,
            corrupt=corrupt,
        )

    def _relevant(self, pairs: PairSet, queries: np.ndarray) -> dict[str, torch.Tensor]:
        """As of ``PairBatch``, of the spaces that are read."""
        found = {}
        for space in self.reader.spaces:
            if space in pairs.relevant:
                place, items = pairs.relevant[space].of(queries)
                ids = self.reader.content_ids(space, items)
                found[space] = torch.from_numpy(np.stack([place, ids], axis=1))
        return found

    def _of_epoch(self, epoch: int) -> tuple[PairSet, np.ndarray]:
        if self._epoch is None or self._epoch[0] != epoch:
            seed = self.settings.seed
            pairs = self.pairs.of_epoch(epoch=epoch, seed=seed)
            self._epoch = epoch, pairs, epoch_order(len(pairs), seed=seed, epoch=epoch)
        return self._epoch[1:]


def _seeds(seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
    """(B,) int64 for the augmentation of each row, other ones each epoch."""
    (of_epoch,) = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return ((of_epoch + rows.astype(np.uint64)) & np.uint64(2**63 - 1)).astype(np.int64)
