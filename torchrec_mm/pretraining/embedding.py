"""Contents to vectors in batches, each rank its share; and the item vectors made from them.

Shape letters: C contents, N items, F feature width, D item-vector width.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from torchrec_mm.data.item_content import Content
from torchrec_mm.parallel.process_group import Worker, gather_rows
from torchrec_mm.pretraining.encoder import Encoder
from torchrec_mm.pretraining.head import VECTOR_WIDTH
from torchrec_mm.pretraining.tower import Inputs

COMPONENT_SAMPLE = 20_000  # items whose features the head's principal components are taken from


@torch.no_grad()
def encode_all(
    encoder: nn.Module,
    load: Callable[[np.ndarray], Inputs],
    contents: np.ndarray,
    batch_size: int,
    worker: Worker,
    label: str,
    lengths: np.ndarray | None = None,
) -> Tensor:
    """Encode many contents; all ranks call it, share the work and get the whole result.

    Args:
        encoder: inputs to (B, D); on the worker's device.
        load: contents (B,) to the inputs of ``encoder``.
        contents: (C,) int64, C > 0.
        batch_size: contents encoded at once on one rank.
        worker: this rank.
        label: what the progress bar says.
        lengths: (C,) of the contents, to batch alike ones together; None keeps their order.

    Returns:
        (C, D) float32 on the worker's device, in the order of ``contents``.
    """
    per_rank = -(-len(contents) // worker.world_size)
    by_length = np.argsort(
        lengths if lengths is not None else np.zeros(len(contents)), kind="stable"
    )
    padded = np.resize(contents[by_length], per_rank * worker.world_size)
    share = padded[worker.rank :: worker.world_size]  # interleaved: ranks get alike work
    starts = range(0, per_rank, batch_size)
    batches = [
        encoder(to_device(load(share[start : start + batch_size]), worker.device))
        for start in tqdm(starts, label, unit="batch", disable=not worker.is_first, leave=False)
    ]
    by_rank = gather_rows(torch.cat(batches)).unflatten(0, (worker.world_size, per_rank))
    encoded = by_rank.transpose(0, 1).flatten(0, 1)[: len(contents)]
    return encoded[torch.from_numpy(np.argsort(by_length, kind="stable"))]


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Tensors go to the device; texts stay where they are until they are tokens."""
    return inputs.to(device) if isinstance(inputs, Tensor) else inputs


def component_sample(present: np.ndarray) -> np.ndarray:
    """Item rows, evenly spaced, that the principal components are taken from.

    Args:
        present: (N,) bool, True where the item has the modality; at least one.

    Returns:
        At most ``COMPONENT_SAMPLE`` int64 rows, ascending; all of them when there are fewer.
    """
    rows = np.flatnonzero(present)
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), COMPONENT_SAMPLE)).astype(np.int64)]


def off_the_shelf_vectors(
    encoder: Encoder, content: Content, batch_size: int, worker: Worker, label: str
) -> tuple[Tensor, np.ndarray]:
    """Fit an untrained encoder's head to the items and embed them; no item is encoded twice.

    Returns:
        As ``item_vectors``.
    """
    sample = component_sample(content.present)
    lengths = content.lengths()
    features = encode_all(
        encoder.backbone, content.load, sample, batch_size, worker, label, lengths[sample]
    )
    encoder.head.fit_principal_components(features)
    vectors = features.new_zeros(len(content), VECTOR_WIDTH)
    with torch.no_grad():
        vectors[torch.from_numpy(sample)] = encoder.head(features)
    rest = np.setdiff1d(np.flatnonzero(content.present), sample, assume_unique=True)
    if len(rest):
        vectors[torch.from_numpy(rest)] = encode_all(
            encoder, content.load, rest, batch_size, worker, label, lengths[rest]
        )
    return vectors, content.present


def item_vectors(
    encoder: Encoder, content: Content, batch_size: int, worker: Worker, label: str
) -> tuple[Tensor, np.ndarray]:
    """Embed the items of one modality.

    Returns:
        vectors (N, D) float32, unit length, zeros where missing; and present (N,) bool.
    """
    present = content.present
    rows = np.flatnonzero(present)
    vectors = torch.zeros(len(content), VECTOR_WIDTH, device=worker.device)
    vectors[torch.from_numpy(rows)] = encode_all(
        encoder, content.load, rows, batch_size, worker, label, content.lengths()[rows]
    )
    return vectors, present


def fuse(by_modality: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Join the vectors of several modalities so that cosines average.

    Args:
        by_modality: M pairs of vectors (N, D), zeros where missing, and present (N,) bool.

    Returns:
        vectors (N, M * D) of unit length: the halves side by side. Between two items that have all
        M, the cosine is the mean of the M cosines; an item that lacks some has zeros there.
        present (N,) bool, True with at least one; other rows are zero.
    """
    joined = np.concatenate([vectors for vectors, _ in by_modality], axis=1)
    present = np.logical_or.reduce([present for _, present in by_modality])
    length = np.sqrt(np.sum([present for _, present in by_modality], axis=0)).clip(min=1)
    return joined / length[:, None].astype(np.float32), present
