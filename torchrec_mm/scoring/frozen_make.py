"""The MAKE of a ranker, where its batches are made."""

import torch.distributed as dist

from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.process_group import Worker, host_folder
from torchrec_mm.parallel.sharded_vectors import Storage, vector_source
from torchrec_mm.ranking.frozen_make import FrozenMake, open_projected, project_vectors
from torchrec_mm.ranking.ranker import Ranker

FILE = "projected.npy"


def frozen_make(
    ranker: Ranker, vectors: ItemVectors | None, storage: Storage, worker: Worker
) -> FrozenMake | None:
    """MAKE as ``ranker`` holds it now, None for a method without. Collective.

    Of several folds the mean, whatever is scored: ``of_training`` is for learning from requests.

    All vectors are projected once a host, into a temporary file that its ranks map and that soon
    has no name any more: it is gone with the processes that use it.

    ``vectors``, ``storage``: the ranker's item vectors, and how they are held.
    """
    make = ranker.network.make
    if make is None:
        return None
    assert vectors is not None  # whatever has MAKE has vectors
    with host_folder(worker) as (folder, is_writer):
        if is_writer:
            project_vectors(make, vectors, folder / FILE)
        dist.barrier()
        projected = open_projected(vectors, folder / FILE)
        source = vector_source(projected, storage, worker)
        dist.barrier()
    spec = ranker.network.spec
    assert spec.make is not None  # its shape
    further = [spec.sequences.index(event) for event in spec.make.sequences]
    return FrozenMake(make, source, further)
