"""Logits of a data set, a batch at a time on the rank that computed them."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.metrics.impression_files import ImpressionFiles
from torchrec_mm.metrics.order import ALL
from torchrec_mm.metrics.streamed import measure_scores
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharding import DistributedModel, ShardedModel


@dataclass(frozen=True)
class Scored:
    """Some requests with their impressions, request by request, candidates in their order.

    requests: (R,) int64 rows of the data set, R >= 1. lengths: (R,) int64 impressions of each.
    labels: (impressions,) int8. logits: (impressions,) float32.
    """

    requests: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    logits: np.ndarray

    @classmethod
    def of_pieces(cls, pieces: "Sequence[Scored]") -> "Scored":
        """One request, of which each of ``pieces`` is a part."""
        if len(pieces) == 1:
            return pieces[0]
        return cls(
            pieces[0].requests,
            np.array([sum(len(piece.labels) for piece in pieces)]),
            np.concatenate([piece.labels for piece in pieces]),
            np.concatenate([piece.logits for piece in pieces]),
        )

    @classmethod
    def of_batch(cls, logits: Tensor, labels: Tensor, offsets: Tensor, rows: Tensor) -> "Scored":
        """Out of ``RankingOutputs``.

        A request without any candidate only kept a rank busy, and is dropped.
        """
        lengths = offsets.cpu().diff()
        return cls(
            rows.cpu()[lengths > 0].numpy(),
            lengths[lengths > 0].numpy(),
            labels.cpu().numpy().astype(np.int8),
            logits.cpu().float().numpy(),
        )


def predict(
    distributed: ShardedModel,
    loader: RequestLoader,
    before_batch: Callable[[], None] = lambda: None,
) -> Iterator[Scored]:
    """Score this rank's requests without learning from them, in the order of the loader.

    Collective: every rank takes all it is given, the same number of batches. ``before_batch`` is
    called as often on every rank; what it raises ends it.
    """

    def batches() -> Iterator[Scored]:
        for batch in loader.epoch(0):
            before_batch()
            with torch.no_grad():
                _, (_, *scored) = distributed.model(batch.to(distributed.worker.device))
            yield Scored.of_batch(*scored)

    distributed.model.eval()
    try:
        yield from whole_requests(batches())
    finally:
        distributed.model.train()


def whole_requests(parts: Iterable[Scored]) -> Iterator[Scored]:
    """The parts without the empty ones, and the pieces of a request as one part."""
    pieces: list[Scored] = []
    for part in parts:
        if not len(part.requests):
            continue
        if pieces and pieces[-1].requests[-1] != part.requests[0]:
            yield Scored.of_pieces(pieces)
            pieces = []
        pieces.append(part)
    if pieces:
        yield Scored.of_pieces(pieces)


def exact_auc(
    distributed: DistributedModel,
    loader: RequestLoader,
    run: Path,
    before_batch: Callable[[], None] = lambda: None,
) -> float | None:
    """AUC of a data set on the first rank, None on the others. Collective.

    Args:
        distributed: the model. loader: the requests to score.
        run: a folder that all ranks see, for files that are gone afterwards.
        before_batch: as ``predict`` takes it.
    """
    worker = distributed.worker
    with shared_folder(run / ".test_auc", worker) as folder:
        files = ImpressionFiles(folder, worker.rank)
        for scored in predict(distributed, loader, before_batch):
            files.add(None, scored.labels, scored.logits)
        files.flush()
        dist.barrier()
        return measure_scores(folder)[ALL].auc if worker.is_first else None


@contextmanager
def shared_folder(folder: Path, worker: Worker) -> Iterator[Path]:
    """A new folder that all ranks write to, gone after the block. Collective.

    What a killed process left there is removed first. It must be on storage that all ranks share,
    as run folders are. The first rank removes it when its block ends: the others must have passed
    a barrier in theirs by then.
    """
    if worker.is_first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    dist.barrier()
    try:
        yield folder
    finally:
        if worker.is_first:
            shutil.rmtree(folder, ignore_errors=True)
