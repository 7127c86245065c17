"""Fits each user's effects to what the network leaves open of his training impressions.

Of a user there are W + W * W sums, more than memory has room for; they lie in a temporary file of
each rank, of which a block of rows at a time is added up over the ranks.

Shape letters: U rows of the table of effects, W its width.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from torchrec_mm.data.stream.batches import USER_ID, RequestBatch
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.errors import InputError
from torchrec_mm.nn.effects import likely_precision, solve, sums_of
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.ranking.effects import EFFECTS
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.ranking.spec import RankerSpec
from torchrec_mm.runs.tensor_shards import TensorShards

BLOCK_ROWS = (
    2048  # 11 MB of sums at the default width, and the users that precisions are found from
)
OWN_ROWS = 2  # what is before them is of users unseen and rare


def check_room(spec: RankerSpec) -> None:
    """InputError if the sums of all users would not fit where temporary files lie."""
    if not spec.effects:
        return
    users, ranks = spec.tables.request[USER_ID], int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed = ranks * users * 4 * (spec.effects + spec.effects**2)
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"effects must be so narrow that their sums fit into {folder}, got {spec.effects}: "
            f"{users} users on {ranks} ranks take {needed / 2**30:.1f} GiB, free are "
            f"{free / 2**30:.1f}; 0 is none, TMPDIR another folder"
        )


def clear_effects(distributed: DistributedModel) -> None:
    """Set this rank's rows to 0, which adds nothing; nothing happens in a model without them."""
    for _, rows in _shards(distributed):
        rows.zero_()


@torch.no_grad()
def fit_effects(distributed: DistributedModel, loader: RequestLoader) -> None:
    """One pass over ``loader``, then solve, and fill the table. Collective.

    The network is left as it is. The same clicks give the same effects, in whatever order ranks
    see them but for rounding.
    """
    ranker = cast(Ranker, distributed.model.module)
    if ranker.effect_tables is None:
        return
    clear_effects(distributed)
    size = _table(distributed).size
    with tempfile.TemporaryFile() as file:
        sums = _sums(distributed, loader, size, file)
        sampled = _added_up(sums, np.linspace(OWN_ROWS, size[0] - 1, BLOCK_ROWS).astype(np.int64))
        precision = likely_precision(sampled, size[1])
        for start in range(OWN_ROWS, size[0], BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, size[0]))
            effects, _ = solve(_added_up(sums, rows), precision)
            _fill(distributed, start, effects)


def _sums(
    distributed: DistributedModel,
    loader: RequestLoader,
    size: torch.Size,
    file: IO[bytes],
) -> np.ndarray:
    """(U, W + W * W) float32 of this rank's impressions, in ``file``."""
    rows, width = size
    # Sparse: of users that this rank has not seen it takes no room.
    sums = np.memmap(file, np.float32, "w+", shape=(rows, width + width * width))
    distributed.model.eval()
    try:
        for batch in loader.epoch(0):
            batch = batch.to(distributed.worker.device)
            _, outputs = distributed.model(batch)
            if len(outputs.labels):
                users, added = _of_users(distributed, batch, outputs.logits)
                sums[users] += added
    finally:
        distributed.model.train()
    return sums


def _of_users(
    distributed: DistributedModel, batch: RequestBatch, logits: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of a batch's users, and what their impressions add to the sums of each."""
    effects = cast(Ranker, distributed.model.module).network.effects
    assert effects is not None and batch.features is not None  # a ranker with effects has both
    weights = torch.ones_like(logits) if batch.weights is None else batch.weights
    added = sums_of(effects.columns(batch), logits, batch.labels, weights, batch.candidate_offsets)
    users, place = batch.features[USER_ID].values().unique(return_inverse=True)
    together = added.new_zeros(len(users), added.shape[1])
    together.index_add_(0, place[: len(added)], added)
    return users.cpu().numpy(), together.cpu().numpy()


def _added_up(sums: np.ndarray, rows: np.ndarray) -> Tensor:
    """Some rows' sums over all ranks. Collective."""
    of_rank = torch.from_numpy(sums[rows])
    if dist.get_world_size() > 1:
        on_device = of_rank.cuda() if dist.get_backend() == "nccl" else of_rank
        dist.all_reduce(on_device)
        return on_device.cpu()
    return of_rank


def _table(distributed: DistributedModel) -> TensorShards:
    names = distributed.model.state_dict()
    (key,) = (name for name in names if name.endswith(f".{EFFECTS}_table.weight"))
    return TensorShards.of(names[key])


def _shards(distributed: DistributedModel) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """This rank's parts of the table and where they begin, none without one."""
    if cast(Ranker, distributed.model.module).effect_tables is not None:
        yield from _table(distributed).parts


def _fill(distributed: DistributedModel, start: int, effects: Tensor) -> None:
    """Put ``effects``, of rows from ``start`` on, where this rank holds them."""
    for (row, column), part in _shards(distributed):
        first, end = max(start, row), min(start + len(effects), row + len(part))
        if first < end:
            columns = slice(column, column + part.shape[1])
            part[first - row : end - row] = effects[first - start : end - start, columns]
