"""A sorted stream of events in pieces that hold all events of each of their users."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

CHUNK_EVENTS = 500_000


def whole_users(
    batches: Iterable[pa.RecordBatch], least_rows: int = CHUNK_EVENTS
) -> Iterator[pa.Table]:
    """Cut a stream between users.

    Args:
        batches: with a column user_id, int64, ascending over all batches.
        least_rows: a chunk is cut when it has so many rows or more, of two users or more. It
            exceeds them, or the rows of its first user, by less than a batch.
    """
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        rows += batch.num_rows
        last_user = batch["user_id"][-1].as_py()
        if rows < least_rows or held[0]["user_id"][0].as_py() == last_user:
            continue
        chunk = pa.Table.from_batches(held)
        cut = int(np.searchsorted(chunk["user_id"].to_numpy(), last_user))
        yield chunk.slice(0, cut)
        held, rows = chunk.slice(cut).to_batches(), chunk.num_rows - cut
        del chunk  # what follows it shares a batch with it at most
    if held:
        yield pa.Table.from_batches(held)
