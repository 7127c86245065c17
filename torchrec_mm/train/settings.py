"""The flags that rankers and MAKE are trained with alike, and the batches that they ask for."""

from dataclasses import dataclass

from torchrec_mm.config import check_fields
from torchrec_mm.data.encoded.encoded import EncodedRequests
from torchrec_mm.data.stream.batch_limits import BatchLimits
from torchrec_mm.data.stream.collate import Collator
from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.data.stream.vector_source import VectorSource
from torchrec_mm.parallel.process_group import Worker
from torchrec_mm.parallel.sharded_vectors import Storage, collates_ahead
from torchrec_mm.run_settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class TrainSettings(RunSettings):
    """How a model learns from requests: what ``fit`` and ``learning_batches`` read."""

    vector_storage: Storage = "mapped"
    """mapped: the file, memory-mapped on every host; sharded: row-wise over the ranks' memory."""
    batch_requests: int = 64
    """Most requests in a global batch, over all ranks; fewer where padding them takes too much."""
    batch_behaviours: int | None = None
    """Most behaviours in a global batch, over all ranks: bounds the cost of a step."""
    test_auc: bool = False
    """Score requests/test after each epoch, for metrics.jsonl."""
    allow_keys: tuple[str, ...] = ()
    """Beginnings of names of tensors that a checkpoint need not share with the model."""
    profile_steps: int = 0
    """Steps to trace, into trace.json in run_dir; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "epochs", "batch_requests")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "batch_behaviours")
        check_fields(self, lambda x: x >= 0, "at least 0", "profile_steps")

    @property
    def splits(self) -> tuple[str, ...]:
        """Of the requests, those that are read."""
        return ("train", "test") if self.test_auc else ("train",)


def learning_batches(
    data: EncodedRequests,
    collator: Collator,
    attended: int,
    settings: TrainSettings,
    source: VectorSource | None,
    worker: Worker,
) -> RequestLoader:
    """This rank's batches: requests/train shuffled anew in each epoch, others in their order.

    Args:
        data: whose requests. collator: makes them batches.
        attended: the most behaviours that the model compares with each candidate.
        source: what the collator takes item vectors from, None without them.
    """
    return RequestLoader(
        data,
        collator,
        BatchLimits.to_learn(
            settings.batch_requests, behaviours=settings.batch_behaviours, attended=attended
        ),
        rank=worker.rank,
        world_size=worker.world_size,
        shuffle_seed=settings.seed if data.split == "train" else None,
        pin_memory=worker.device.type == "cuda",
        collate_ahead=collates_ahead(source, worker),
    )
