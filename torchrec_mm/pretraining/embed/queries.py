"""Texts or a picture to query vectors, to search item vectors by."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from torchrec_mm.data.content.images import decode_image
from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors, check_origin
from torchrec_mm.pretraining.encoder.encoder_files import CLIP_E, SavedEncoder, load_encoder
from torchrec_mm.pretraining.encoder.fingerprint import origin_of
from torchrec_mm.pretraining.encoder.item_encoder import FUSED, MODALITIES, ItemEncoder
from torchrec_mm.pretraining.encoder.side import Inputs, side_of

BATCH_SIZE = 64


def encode_query(
    run_dir: Path, vectors: ItemVectors, text: str | None, image: Path | None
) -> np.ndarray:
    """Encode a text, a picture, or for fused vectors both as one query.

    Args:
        run_dir: run of apps.pretrain that made the vectors.
        vectors: that are to be searched.
        text: not blank. image: a picture file. At least one is given.

    Returns:
        (1, D) float32, unit length, D that of the vectors.

    Raises:
        InputError: vectors of another origin; a query of another modality than theirs, unless the
            run aligned the two; a run without the modality; or a picture that cannot be decoded.
    """
    given = [m for m, content in (("image", image), ("text", text)) if content is not None]
    encoder, space = _encoder_for(run_dir, vectors, given)
    texts = [] if text is None else [text]
    with torch.inference_mode():
        return _encode(encoder, texts, image)[space].numpy()


def encode_texts(run_dir: Path, vectors: ItemVectors, texts: Sequence[str]) -> np.ndarray:
    """Encode Q texts, a query each: (Q, D) float32, unit length; the rest as ``encode_query``."""
    encoder, space = _encoder_for(run_dir, vectors, ["text"])
    batches = [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]
    with torch.inference_mode():
        return torch.cat([_encode(encoder, batch, None)[space] for batch in batches]).numpy()


def _encoder_for(run_dir: Path, vectors: ItemVectors, given: list[str]) -> tuple[ItemEncoder, str]:
    """The encoder that made the vectors, and where the vector of such a query is taken from."""
    fused = vectors.modality == FUSED
    wanted = MODALITIES if fused else [m for m in MODALITIES if m in (vectors.modality, *given)]
    saved = load_encoder(run_dir, wanted)
    space = _space(saved, vectors, given)
    origin = origin_of(saved.name, saved.encoder, vectors.modality)
    check_origin(vectors, origin, f"encoder {run_dir}")
    return saved.encoder, space


def _space(saved: SavedEncoder, vectors: ItemVectors, given: list[str]) -> str:
    """Where the query's vector is taken from."""
    if vectors.modality == FUSED:
        return FUSED
    if given == [vectors.modality] or (saved.name == CLIP_E and len(given) == 1):
        return given[0]
    raise InputError(
        f"{vectors.modality} vectors of {saved.name} must be searched by {vectors.modality} alone, "
        f"got {' and '.join(given)}"
    )


def _encode(
    encoder: ItemEncoder, texts: Sequence[str], image: Path | None
) -> dict[str, torch.Tensor]:
    """(Q, width) float32 by space, zeros where a query has nothing; with a picture Q is 1."""
    inputs: dict[str, Inputs] = {}
    places = {}
    for modality, part in encoder.encoders.items():
        given = len(texts) if modality == "text" else int(image is not None)
        places[modality] = np.arange(given, dtype=np.int64)
        if modality == "image":
            inputs[modality] = _picture(image, part.spec.image_size)
        else:
            inputs[modality] = part.tokenise([*texts] or [""])
    return encoder(side_of(len(texts) or 1, inputs, places))


def _picture(image: Path | None, size: int) -> torch.Tensor:
    """(1, 3, size, size) uint8; black for none, as a filler."""
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    if image is not None:
        pixels = decode_image(image, size, "image")
    return torch.tensor(pixels).permute(2, 0, 1)[None]
