"""The least that a step of contrastive training with a momentum encoder can be, and its data.

In-batch InfoNCE and a triplet loss on ready batches, one device, no masks, nothing logged. The
data are made up, for timing: titles, JPEG pictures, nothing to be learned. Shape letters:
B searches, H hard-negative slots, D vector width.
"""

import copy
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchrec_mm.benchmarks.embedding import WORDS, picture
from torchrec_mm.columns.parquet import write_table
from torchrec_mm.pretraining.encoder.side import PairBatch

TEMPERATURE, MARGIN, MOMENTUM = 0.07, 0.1, 0.99


def bare_steps(encoder: nn.Module, batches: Sequence[PairBatch], rate: float) -> list[float]:
    """Seconds of each step at a learning rate; ``encoder``: a side to (rows, D) by space."""
    slow = copy.deepcopy(encoder).requires_grad_(False)
    parameters: list[Tensor] = list(encoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate, foreach=True)
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        loss = contrast(encoder, slow, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(slow.parameters()), parameters, 1 - MOMENTUM)
        loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds


def contrast(encoder: nn.Module, slow: nn.Module, batch: PairBatch) -> Tensor:
    """Sum over spaces of both losses."""
    query = encoder(batch.query)
    with torch.no_grad():
        key, hard = slow(batch.key), slow(batch.hard)
    own = torch.arange(batch.query.num_rows, device=next(iter(query.values())).device)
    total = torch.zeros(())
    for space, query_BD in query.items():
        hard_BHD = hard[space].unflatten(0, (len(own), batch.num_hard))
        cosine_BB = query_BD @ key[space].T
        violation_BH = (query_BD[:, None] * hard_BHD).sum(dim=2) - cosine_BB.diag()[:, None]
        total = total + F.cross_entropy(cosine_BB / TEMPERATURE, own)
        total = total + F.relu(violation_BH + MARGIN).mean()
    return total


ITEMS, PIXELS = 500, 100


def make_searches(root: Path, searches: int) -> None:
    """items/ and searches/ below ``root``; each search has a photo, a text and a clicked item."""
    generator = np.random.default_rng(0)

    def texts(count: int, least: int, most: int) -> list[str]:
        lengths = (generator.integers(least, most) for _ in range(count))
        return [" ".join(generator.choice(WORDS, length)) for length in lengths]

    def pictures(count: int) -> list[bytes]:
        return [picture(generator, PIXELS) for _ in range(count)]

    items = {"item_id": np.arange(ITEMS), "title": texts(ITEMS, 3, 15), "image": pictures(ITEMS)}
    write_table(root / "items" / "part-0.parquet", pa.table(items))
    bought = generator.integers(0, ITEMS, searches)
    clicked = [[item] for item in (bought + 1) % ITEMS]
    table = {
        "search_id": np.arange(searches),
        "user_id": np.arange(searches),
        "timestamp": np.arange(searches),
        "query_text": texts(searches, 2, 8),
        "query_image": pictures(searches),
        "purchased_item_id": bought,
        "clicked_item_ids": pa.array(clicked, pa.list_(pa.int64())),
    }
    write_table(root / "searches" / "part-0.parquet", pa.table(table))
