"""One way to refuse a mixture of vectors."""

from torchrec_mm.errors import InputError
from torchrec_mm.item_vectors.store import ItemVectors


def check_origin(vectors: ItemVectors, origin: str, whose: str) -> None:
    """Refuse vectors of another encoder, preprocessing or modality than those used before.

    Args:
        vectors: that are given now.
        origin: of those before.
        whose: what was made from those, e.g. "make runs/make".

    Raises:
        InputError: the origins differ.
    """
    if vectors.origin != origin:
        rule = f"vectors must have the origin of {whose}, {origin}"
        raise InputError(f"{rule}, got {vectors.origin} of {vectors.folder}")
