"""How many pictures a run may be unable to decode."""

from torchrec_mm.errors import InputError

ALLOWED_IN_ANY_RUN = 1  # of few pictures, one alone would exceed any small share


def check_corrupt(corrupt: int, pictures: int, share: float) -> None:
    """Refuse data of which more pictures than allowed cannot be decoded.

    Args:
        corrupt: pictures that could not be decoded, of ``pictures`` that were tried.
        share: of the pictures, in [0, 1]; one alone is let pass if it is above 0.

    Raises:
        InputError: they are more.
    """
    if corrupt > max(share * pictures, ALLOWED_IN_ANY_RUN if share else 0):
        rule = f"corrupt_share must be at least {corrupt / pictures:.4f} for these pictures"
        raise InputError(f"{rule}, {corrupt} of {pictures} could not be decoded, got {share}")
