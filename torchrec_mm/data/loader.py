"""Encoded requests to batches: which requests a rank sees in a step, and what it needs of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from torchrec_mm.data.batches import RequestBatch
from torchrec_mm.data.encoding import EncodedRequests
from torchrec_mm.errors import InputError


@dataclass
class Plan:
    ends: np.ndarray


class RequestLoader:
    """Batches of one rank, in an order that every rank derives alike.

    The requests, shuffled by seed and epoch or in their order on disk, are cut into global batches
    whose sizes differ by one request at most, and each global batch into one contiguous share a
    rank. So all ranks take the same number of steps, no request is dropped or seen twice, and the
    global batches do not depend on the number of ranks, unless one would hold fewer requests than
    there are ranks: then there are fewer, larger ones.
    """

    def __init__(
        self,
        data: EncodedRequests,
        batch_requests: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        shuffle_seed: int | None = None,
    ) -> None:
        """Prepare to iterate.

        Args:
            data: what to iterate over.
            batch_requests: the most requests in a global batch, over all ranks.
            rank, world_size: whose share this is.
            shuffle_seed: None keeps the order on disk.

        Raises:
            InputError: some rank would get no request in some step.
        """
        if batch_requests < world_size:
            raise InputError(
                f"batch_requests must be at least the number of ranks, {world_size}, "
                f"got {batch_requests}"
            )
        if len(data) < world_size:
            raise InputError(f"requests must be at least {world_size}, one a rank, got {len(data)}")
        self.data = data
        self.rank = rank
        self.world_size = world_size
        self.shuffle_seed = shuffle_seed
        self.num_steps = min(-(-len(data) // batch_requests), len(data) // world_size)

    def __len__(self) -> int:
        return self.num_steps

    def plan(self, epoch: int, done: int = 0) -> "Plan":
        sizes = [len(part) for part in np.array_split(np.arange(len(self.data)), self.num_steps)]
        ends = np.cumsum(sizes)
        return Plan(ends[ends > done])

    def epoch(self, epoch: int, done: int = 0) -> Iterator[RequestBatch]:
        """All batches of this rank in one epoch; the order depends on seed and epoch alone."""
        if self.shuffle_seed is None:
            order = np.arange(len(self.data))
        else:
            order = np.random.default_rng([self.shuffle_seed, epoch]).permutation(len(self.data))
        end = 0
        for rows in np.array_split(order, self.num_steps):
            end += len(rows)
            if end <= done:
                continue
            impressions = self.data.candidates.positions(rows)[1].sum()
            mine = np.array_split(rows, self.world_size)[self.rank]
            yield make_batch(self.data, mine, self.world_size / impressions)


def make_batch(data: EncodedRequests, rows: np.ndarray, loss_weight: float) -> RequestBatch:
    """Collect the requests ``rows``: (R,) int64 rows of ``data``, R >= 1."""
    candidate_positions, num_candidates = data.candidates.positions(rows)
    behaviour_positions, num_behaviours = data.behaviours.positions(rows)
    candidates = data.candidates.values[candidate_positions]
    behaviours = data.behaviours.values[behaviour_positions]
    items, slots = np.unique(np.concatenate([candidates, behaviours]), return_inverse=True)
    candidate_index, candidate_mask = pad(slots[: len(candidates)], num_candidates)
    behaviour_index, behaviour_mask = pad(slots[len(candidates) :], num_behaviours)
    labels, _ = pad(data.requests.labels[candidate_positions], num_candidates)

    item_ids = {name: table[items] for name, table in data.item_rows.items()}
    attribute_index = []
    for name, table in data.behaviour_rows.items():
        item_ids[name], inverse = np.unique(table[behaviour_positions], return_inverse=True)
        attribute_index.append(pad(inverse, num_behaviours)[0])

    vectors = vector_mask = None
    if data.vectors is not None:
        values, mask = data.vectors.gather(data.vector_rows[items])
        vectors, vector_mask = torch.from_numpy(values), torch.from_numpy(mask)
    return RequestBatch(
        request_features=one_id_bags({n: table[rows] for n, table in data.request_rows.items()}),
        item_features=one_id_bags(item_ids),
        candidate_index=torch.from_numpy(candidate_index),
        candidate_mask=torch.from_numpy(candidate_mask),
        behaviour_index=torch.from_numpy(behaviour_index),
        behaviour_mask=torch.from_numpy(behaviour_mask),
        behaviour_attribute_index=torch.from_numpy(
            np.stack(attribute_index) if attribute_index else np.zeros((0, *behaviour_index.shape))
        ).long(),
        vectors=vectors,
        vector_mask=vector_mask,
        labels=torch.from_numpy(labels.astype(np.float32)),
        loss_weight=torch.tensor(loss_weight, dtype=torch.float32),
        rows=torch.from_numpy(rows),
    )


def pad(values: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists one after another to a matrix of the longest, and its mask.

    Args:
        values: (t,) the R lists. lengths: (R,) int64 summing to t.

    Returns:
        (R, max(lengths, 1)) like ``values`` with zeros in padding, and bool, True where real.
    """
    mask = np.arange(max(int(lengths.max(initial=0)), 1)) < lengths[:, None]
    padded = np.zeros(mask.shape, dtype=values.dtype)
    padded[mask] = values
    return padded, mask


def one_id_bags(rows: Mapping[str, np.ndarray]) -> KeyedJaggedTensor | None:
    """One bag of one id for each row number; the shorter features end in empty bags."""
    if not rows:
        return None
    stride = max(len(ids) for ids in rows.values())
    lengths = np.zeros((len(rows), stride), dtype=np.int32)
    for lengths_of_table, ids in zip(lengths, rows.values(), strict=True):
        lengths_of_table[: len(ids)] = 1
    return KeyedJaggedTensor(
        keys=list(rows),
        values=torch.from_numpy(np.concatenate(list(rows.values()))),
        lengths=torch.from_numpy(lengths.reshape(-1)),
        stride=stride,
    )
