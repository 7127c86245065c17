"""The MAKE of a ranker, where its batches are made."""

from pathlib import Path

import torch.distributed as dist

from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharded_vectors import Storage, vector_source
from torchrec_mm.ranking.frozen_make import FrozenMake, open_projected, project_vectors
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.scoring.predictions import shared_folder

FILE = "projected.npy"


def frozen_make(
    ranker: Ranker, vectors: ItemVectors | None, storage: Storage, folder: Path, worker: Worker
) -> FrozenMake | None:
    """MAKE as ``ranker`` holds it now, None for a method without. Collective.

    All vectors are projected once, into a file that every rank maps and that has no name any more
    when this returns: it is gone with the processes that use it.

    Args:
        vectors, storage: the ranker's item vectors, and how they are held.
        folder: for the file; on storage that all ranks share.
    """
    make = ranker.network.make
    if make is None:
        return None
    assert vectors is not None  # whatever has MAKE has vectors
    with shared_folder(folder / ".make", worker) as aside:
        if worker.is_first:
            project_vectors(make, vectors, aside / FILE)
        dist.barrier()
        projected = open_projected(vectors, aside / FILE)
        source = vector_source(projected, storage, worker)
        dist.barrier()
    return FrozenMake(make, source)
