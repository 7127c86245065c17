"""What encoders are compared with SCL, and how long each is trained to be comparable."""

from collections.abc import Mapping, Sequence
from typing import Any

OFF_THE_SHELF = "off-the-shelf"

# What sets each encoder apart from SCL, as flags of apps.pretrain.
ENCODERS: dict[str, dict[str, Any]] = {
    OFF_THE_SHELF: {"epochs": 0},
    # As CLIP trains: against the batch, keys from the encoder as it is
    "clip-e": {"method": "clip-e", "bank_slots": 0, "momentum": 0.0},
    "scl": {},
    "scl-no-bank": {"bank_slots": 0},
    "scl-no-triplet": {"triplet_weight": 0.0},
    "co-click": {"method": "co-click"},
}


def plan(
    encoders: Sequence[str], scl: Mapping[str, Any], num_pairs: Mapping[str, int], has_hard: bool
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The flags of each encoder that is worth a run, and what a reader must know.

    Each gets as many steps as SCL, as closely as whole epochs allow. An encoder that would be the
    same as SCL is left out, and one with fewer pairs than a batch.

    Args:
        encoders: some of ``ENCODERS``.
        scl: all flags of SCL.
        num_pairs: training pairs by method, 0 where a method is not named.
        has_hard: whether any training search has an item that was clicked and not bought.
    """
    flags, notes = {}, []
    for encoder in encoders:
        changes = ENCODERS[encoder]
        if encoder == "scl-no-triplet" and not has_hard:
            notes.append(f"{encoder} is scl here: no search has an item clicked and not bought.")
        elif changes and all(scl[name] == value for name, value in changes.items()):
            notes.append(f"{encoder} is scl here, by the flags given.")
        elif "method" not in changes:
            flags[encoder] = changes
        else:
            epochs, note = _as_many_steps(encoder, scl, num_pairs)
            notes.append(note)
            if epochs:
                flags[encoder] = changes | {"epochs": epochs}
    return flags, notes


def _as_many_steps(
    encoder: str, scl: Mapping[str, Any], num_pairs: Mapping[str, int]
) -> tuple[int, str]:
    """Epochs of a method of other pairs, 0 for too few of them; and what to say of it."""
    batch_size, pairs = scl["batch_size"], num_pairs.get(ENCODERS[encoder]["method"], 0)
    per_epoch = pairs // batch_size
    if per_epoch == 0:
        why = f"it has {pairs} pairs, fewer than a batch of {batch_size}"
        return 0, f"{encoder} is left out: {why}."
    num_steps = scl["epochs"] * (num_pairs["scl"] // batch_size)
    epochs = max(1, round(num_steps / per_epoch))
    return epochs, (
        f"{encoder} is trained for {epochs} epochs of {per_epoch} steps, {epochs * per_epoch} in "
        f"all, scl for {num_steps}."
    )
