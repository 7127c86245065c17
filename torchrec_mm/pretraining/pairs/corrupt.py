"""How many pictures that cannot be decoded a run puts up with."""

from torchrec_mm.errors import InputError

FEW = 1  # corrupt pictures that a run of any size survives


def check_corrupt(corrupt: int, pictures: int, share: float) -> None:
    """Refuse data of which more pictures than allowed cannot be decoded.

    Args:
        corrupt: pictures that could not be decoded, of ``pictures`` that were tried.
        share: of the pictures, in [0, 1]; one alone is let pass if it is above 0.

    Raises:
        InputError: they are more.
    """
    if corrupt > max(share * pictures, FEW if share else 0):
        raise InputError(
            f"corrupt_share must be at least {corrupt / pictures:.4f} for these pictures, "
            f"{corrupt} of {pictures} could not be decoded, got {share}"
        )
