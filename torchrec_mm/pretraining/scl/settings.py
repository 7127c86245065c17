"""The flags of SCL: its loss, the steps of AdamW, and its loop; apps.pretrain inherits them.

Imports no torch: ``apps.pretrain --help`` does without.
"""

from dataclasses import dataclass
from math import inf

from torchrec_mm.config import check_fields
from torchrec_mm.run_settings import RunSettings

MAX_BANK_SLOTS = 196_800  # Sheng et al., CIKM 2024, arXiv:2407.19467
# A bank that holds every item, or each several times over, was worse than none on real searches;
# one of a thirteenth of the items was a little better than none.
ITEMS_PER_BANK_SLOT = 10


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """The loss of a contrast: InfoNCE + triplet_weight * triplet."""

    momentum: float = 0.99
    """of the momentum encoder, in [0, 1)"""
    bank_slots: int | None = None
    """keys in the memory bank of each contrast (784 bytes a key of 384); 0: none. By default one
    for every ten items, at most the paper's 196 800; config.yaml says how many"""
    in_batch: bool = True
    """whether the other keys of a batch are negatives too"""
    triplet_weight: float = 1.0
    """weight of the triplet loss on clicked-not-bought items; 0 leaves it out"""
    margin: float = 0.1
    """margin of the triplet loss, a cosine distance in [0, 2]"""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: 0 <= x < 1, "in [0, 1)", "momentum")
        check_fields(self, lambda x: x is None or x >= 0, "at least 0", "bank_slots")
        check_fields(self, lambda x: 0 <= x < inf, "finite and at least 0", "triplet_weight")
        check_fields(self, lambda x: 0 <= x <= 2, "in [0, 2]", "margin")


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Steps of AdamW."""

    layer_decay: float = 1.0
    """in (0, 1]: each layer's step size is that of the layer after it times this"""
    learning_rate: float = 1e-3
    """AdamW's peak step size of heads, gate and temperatures"""
    backbone_learning_rate: float = 1e-5
    """AdamW's peak step size of the last trainable layer"""
    weight_decay: float = 1e-4
    """AdamW's decoupled weight decay of matrices"""
    warmup_steps: int = 0
    """steps until the step sizes reach their peak; they then fall to zero along a cosine"""
    clip_norm: float = 0.0
    """greatest norm of a step's gradient; longer ones are shortened to it. 0: none is"""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: 0 < x <= 1, "in (0, 1]", "layer_decay")
        steps = ("learning_rate", "backbone_learning_rate", "weight_decay", "clip_norm")
        check_fields(self, lambda x: 0 <= x < inf, "finite and at least 0", *steps)
        check_fields(self, lambda x: x >= 0, "at least 0", "warmup_steps")


@dataclass(frozen=True, kw_only=True)
class FitSettings(RunSettings):
    """How long to train, and what to keep."""

    epochs: int = 5
    """passes over the training pairs; 0 writes the off-the-shelf encoders"""
    corrupt_share: float = 0.01
    """share of the pictures that may be impossible to decode, in [0, 1]; they count as missing"""
    keep_checkpoints: int = 1
    """checkpoints that stay, besides the best by MRR"""
    log_every_steps: int = 20
    """steps in a line of metrics.jsonl"""
    seed: int = 0
    """of shuffling and augmentation"""
    resume: bool = False
    """go on with the run in run_dir from its latest checkpoint; start it if there is none"""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: 0 <= x < inf, "finite and at least 0", "hang_timeout_s")
        super().__post_init__()
        check_fields(self, lambda x: x >= 0, "at least 0", "epochs")
        check_fields(self, lambda x: 0 <= x <= 1, "in [0, 1]", "corrupt_share")
