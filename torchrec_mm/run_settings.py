"""The flags that every training command has, whichever phase.

Not in ``runs``, whose checkpoints take a second to import that ``--help`` has no use for.
"""

from dataclasses import dataclass

from torchrec_mm.config import check_fields


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How long a run goes on and what it keeps: what a command inherits, a training loop reads.

    A command gives a field another default, or other words, by declaring it again.
    """

    epochs: int
    """Passes over the training data."""
    seed: int = 0
    """Of the initial weights and the order of requests."""
    warmup_steps: int = 0
    """Steps in which the learning rates grow from 0 to what they are."""
    checkpoint_steps: int = 0
    """Save each time as many steps are done, besides after each epoch; 0 for epochs alone."""
    keep_checkpoints: int = 1
    """How many of the last checkpoints stay, besides the best by test AUC."""
    resume: bool = False
    """Go on with the run in run_dir after its last checkpoint, on any number of processes."""
    tf32: bool = False
    """On GPUs, multiply float32 matrices with 10 bits of mantissa: faster, less exact."""
    log_every_steps: int = 20
    """Steps in a window: of metrics.jsonl, TensorBoard and the guards."""
    hang_timeout_s: float = 600.0
    """Seconds without a finished step after which all stacks are printed; 0 never prints them."""
    stop_timeout_s: float = 25.0
    """Seconds that saving may take after SIGTERM; torchrun and Slurm kill 30 after it."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "keep_checkpoints", "log_every_steps")
        check_fields(self, lambda x: x >= 0, "at least 0", "seed", "warmup_steps")
        check_fields(self, lambda x: x >= 0, "at least 0", "checkpoint_steps", "hang_timeout_s")
        check_fields(self, lambda x: x > 0, "above 0", "stop_timeout_s")

    def is_saved(self, step: int) -> bool:
        """Whether a checkpoint is due when ``step`` steps are done, in the middle of an epoch."""
        return self.checkpoint_steps > 0 and step % self.checkpoint_steps == 0
