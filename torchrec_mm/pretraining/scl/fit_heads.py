"""How a run begins: where inputs come from, and heads that make the encoder an off-the-shelf one.

Shape letters: n rows of the sample, F feature width.
"""

import numpy as np
import torch
from torch import Tensor

from torchrec_mm.data.content.packed import PackedContent
from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker, copy_from_first_rank, gather_rows
from torchrec_mm.pretraining.encoder.encoder import Encoder
from torchrec_mm.pretraining.encoder.fingerprint import features_fingerprint
from torchrec_mm.pretraining.encoder.item_encoder import ItemEncoder
from torchrec_mm.pretraining.encoder.side import Inputs
from torchrec_mm.pretraining.judge.judge import evenly_spread
from torchrec_mm.pretraining.pairs.features import Features, cache_features
from torchrec_mm.pretraining.pairs.side_reader import (
    Content,
    FeatureSource,
    PictureSource,
    SideReader,
    Source,
    TextSource,
    check_corrupt,
)

COMPONENT_SAMPLE = 20_000  # items whose features the heads' principal components are taken from
BATCH_SIZE = 64


def reader_for(
    encoder: ItemEncoder,
    packed: PackedContent,
    *,
    max_pixels: int,
    corrupt_share: float,
    worker: Worker,
) -> SideReader:
    """What the encoder reads of the content. Collective.

    Where a backbone is frozen, its features: computed once, unless they are there already.

    Raises:
        InputError: features of more than ``corrupt_share`` of the pictures cannot be had.
    """
    sources: dict[str, Source] = {}
    for modality, part in encoder.encoders.items():
        content = _content(modality, part, packed, max_pixels)
        sources[modality] = content
        if part.backbone_is_frozen:
            features = _features(modality, part, packed, content, max_pixels, worker)
            check_corrupt(corrupt=features.corrupt, pictures=len(features.ok), share=corrupt_share)
            sources[modality] = FeatureSource(features)
    return SideReader(packed, sources)


@torch.no_grad()
def fit_heads(encoder: ItemEncoder, reader: SideReader, worker: Worker) -> None:
    """Give heads the items' principal components, where they have no room for all of the features.

    Collective; InputError if no picture decodes.
    """
    for modality, part in encoder.encoders.items():
        if part.head.keeps_all:
            continue
        contents = reader.packed.by_modality[modality]
        present = np.flatnonzero(contents.present[: reader.packed.num_items])
        rows = evenly_spread(present, COMPONENT_SAMPLE)
        features = _sample_features(part, reader.sources[modality], rows, worker)
        if not len(features):
            rule = "items must have pictures that can be decoded"
            raise InputError(f"{rule}, got none of {len(rows)}")
        part.head.fit_principal_components(features)
        # Unlike devices find unlike components, and vectors of unlike heads cannot be compared.
        copy_from_first_rank(part.head.projection.parameters())


def _content(modality: str, encoder: Encoder, packed: PackedContent, max_pixels: int) -> Content:
    contents = packed.by_modality[modality]
    if modality == "image":
        return PictureSource(contents, encoder.spec.image_size, max_pixels=max_pixels)
    return TextSource(contents, encoder.tokenise)


def _features(
    modality: str,
    encoder: Encoder,
    packed: PackedContent,
    content: Content,
    max_pixels: int,
    worker: Worker,
) -> Features:
    """In a folder beside the content, named by all that they depend on."""
    limit = f"-{max_pixels}" if modality == "image" else ""
    return cache_features(
        packed.folder / "features" / f"{modality}-{features_fingerprint(encoder)}{limit}",
        packed.by_modality[modality],
        content.lengths,
        content.load,
        lambda inputs: encoder.backbone(to_device(inputs, worker.device)),
        BATCH_SIZE,
        worker,
        f"{modality}: features",
    )


def _sample_features(encoder: Encoder, source: Source, rows: np.ndarray, worker: Worker) -> Tensor:
    """(n, F) of the sample's rows that could be read; each rank computes its share."""
    per_rank = -(-len(rows) // worker.world_size)
    share = np.resize(rows, per_rank * worker.world_size)[worker.rank :: worker.world_size]
    features, good = [], []
    for start in range(0, per_rank, BATCH_SIZE):
        inputs, ok = source.load(share[start : start + BATCH_SIZE], None)
        inputs = to_device(inputs, worker.device)
        if isinstance(inputs, Tensor) and inputs.is_floating_point():  # cached
            features.append(inputs)
        else:
            features.append(encoder.backbone(inputs))
        good.append(torch.from_numpy(ok).to(worker.device))
    of_all = gather_rows(torch.cat(features))
    places = torch.arange(len(of_all), device=worker.device)
    order = places.view(worker.world_size, per_rank).T.flatten()[: len(rows)]
    return of_all[order][gather_rows(torch.cat(good))[order]]


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Tensors, or a dict of them, on another device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return {name: tensor.to(device) for name, tensor in inputs.items()}
