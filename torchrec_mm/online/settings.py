"""The flags of following; a command that trains rankers inherits them."""

from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.config import check_fields
from torchrec_mm.errors import InputError
from torchrec_mm.train.settings import TrainSettings

WINDOW_S = 3600


@dataclass(frozen=True, kw_only=True)
class FollowSettings(TrainSettings):
    """What is followed, from where, and which of it is published."""

    follow: Path | None = None
    """Folder that files in the layout of requests/ are put into, by renaming: they are learned from
    as they come, in the order of their names, instead of requests/train; names that begin with a
    dot or _ are left alone. All flags that are not given are those of start_from, but for a quarter
    of its learning_rate and a tenth of its table_learning_rate."""
    follow_redis: str | None = None
    """Instead of follow: redis://HOST:PORT/DB, its password in REDIS_PASSWORD, of which a stream
    holds such a file in the field "requests" of each entry. All that is said of follow holds."""
    stream: str = "requests"
    """With follow_redis only: key of the stream."""
    start_from: Path | None = None
    """With follow only: ranker run to go on from, at its latest checkpoint."""
    items: Path | None = None
    """With follow only: folder like items/; not given: items/ of the run's data."""
    once: bool = False
    """With follow only: end when no file is left, instead of waiting for more."""
    window_s: int = WINDOW_S
    """With follow only: seconds, of the requests' own time, that are scored, then learned from, and
    then saved together."""
    least_gauc: float | None = None
    """With follow only: what is learned from a window of a lower GAUC, or of none, is kept from
    scorers until a window is as good; null publishes every window."""
    most_miscalibration: float | None = None
    """With follow only: likewise where the mean prediction is more than so many times the click
    rate, or less than that part of it."""

    def __post_init__(self) -> None:
        """Refuse what goes with follow alone, and values out of range."""
        super().__post_init__()
        check_fields(self, lambda x: x >= 1, "at least 1", "window_s")
        in_range = "in [0, 1]"
        check_fields(self, lambda x: x is None or 0 <= x <= 1, in_range, "least_gauc")
        check_fields(self, lambda x: x is None or x >= 1, "at least 1", "most_miscalibration")
        if self.follow is not None and self.follow_redis is not None:
            raise InputError(f"follow must not be given with follow_redis, got {self.follow}")
        if not self.is_following:
            self._check_alone()
        elif self.start_from is None:
            raise InputError("start_from must be given with follow, got null")
        else:
            rule = "with follow, which saves after each window"
            check_fields(self, lambda x: x == 0, f"0 {rule}", "checkpoint_steps")
            check_fields(self, lambda x: not x, f"false {rule} and scores it before", "test_auc")
            held = "mapped with follow"
            check_fields(self, lambda x: x == "mapped", held, "vector_storage")

    @property
    def is_following(self) -> bool:
        """Whether requests are learned from as they arrive."""
        return self.follow is not None or self.follow_redis is not None

    def _check_alone(self) -> None:
        for name in FollowSettings.__annotations__:
            default = FollowSettings.__dataclass_fields__[name].default
            if getattr(self, name) != default:
                rule = f"{name} must not be given without follow"
                raise InputError(f"{rule}, got {getattr(self, name)}")
