"""What a new item's vector is worth by when it arrives: a test split replayed in time.

python -m apps.replay --ranker runs/simtier --data market --run_dir replays/simtier
"""

import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.data.contract.items import read_items
from torchrec_mm.data.encode.source import known_columns
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_folder
from torchrec_mm.item_vectors.store import ItemVectors
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.replay.arrivals import Arrivals
from torchrec_mm.replay.follower import Follower
from torchrec_mm.replay.measure import measure
from torchrec_mm.replay.replay import Replayed, read_in_order, replay
from torchrec_mm.replay.report import PAGE_FILE, write_replays
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.scorer import Scorer
from torchrec_mm.targets import check_new_folder

NEVER = "never"
UNITS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Score requests/test in the order of time, the vectors of new items coming some time after.

    Once for each delay, by a live index and the online scorer. Items need created_at, and requests
    their timestamp; items of before the replay have had their vectors for that long.
    """

    ranker: Path
    """Folder of a ranker run of a method that uses vectors."""
    data: Path
    """Folder of items/ and requests/test."""
    run_dir: Path
    """Folder to create: replay.json, replay.md and replay.html."""
    vectors: Path | None = None
    """Folder of the vectors of all items; not given: the run's."""
    delays_s: tuple[float | None, ...] = (10.0, 3_600.0, 86_400.0, None)
    """Seconds from an item's creation to its vector; null: items born in the replay never get
    one. All are compared with the last."""
    window_s: int = 600
    """Seconds of time whose requests see the index as it is when they begin."""
    learn_window_s: int = 0
    """Not 0: each delay is replayed once more, with apps.train_ranker --follow beside it, whose
    window_s this is; the scorer takes its deltas."""
    resamples: int = 1000
    """Of the users, for intervals."""

    def __post_init__(self) -> None:
        check_fields(self, lambda x: x >= 1, "at least 1", "window_s")
        check_fields(self, lambda x: x >= 0, "at least 0", "learn_window_s")
        check_fields(self, lambda x: x >= 100, "at least 100", "resamples")
        told = ", ".join(map(str, self.delays_s)) or "none"
        if len(set(self.delays_s)) < max(1, len(self.delays_s)):
            raise InputError(f"delays_s must be at least one, each once, got {told}")
        if any(delay is not None and not 0 <= delay < float("inf") for delay in self.delays_s):
            raise InputError(f"delays_s must be at least 0, or null, got {told}")


def main(argv: Sequence[str] | None = None) -> None:
    """Replay once for each delay, then measure."""
    config = parse(ReplayConfig, argv)
    reads = [config.ranker, config.data, config.vectors]
    check_new_folder(config.run_dir, "run_dir", reads)
    trained = TrainedRun.open(config.ranker, "latest")
    vectors = open_vectors(trained, config.vectors, "mapped")
    if vectors is None:
        raise InputError(f"ranker must be of a method with vectors, got method {trained.method}")
    learning = (True, False) if config.learn_window_s else (False,)
    with suppress_library_warnings():
        replays = {
            name_of(delay, learns): replayed(trained, vectors, config, delay, learns)
            for learns in learning
            for delay in config.delays_s
        }
    rows = measure(replays, config.resamples)
    how = {"ranker": str(config.ranker), "method": trained.method, "window_s": config.window_s}
    with new_folder(config.run_dir) as aside:
        write_replays(rows, how, aside)
    print(config.run_dir / PAGE_FILE)


def replayed(
    trained: TrainedRun,
    vectors: ItemVectors,
    config: ReplayConfig,
    delay_s: float | None,
    learns: bool,
) -> Replayed:
    """All requests, scored as they would have been with that delay."""
    items = read_items(config.data)
    columns = known_columns(trained.vocabularies)
    table = read_in_order(config.data / "requests" / "test", columns)
    begin_s = table["timestamp"][0].as_py()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        index = folder / "index"
        arrivals = Arrivals(index, vectors, items, begin_s=begin_s, delay_s=delay_s)
        with closing(arrivals):
            if learns:
                beside = Follower(trained, config.data, arrivals, folder, config.learn_window_s)
                with beside:
                    of_now = (beside.scorer, table, items, arrivals, config.window_s)
                    return replay(*of_now, beside.learn)
            scorer = Scorer.open(trained, config.data / "items", lambda: arrivals.vectors)
            return replay(lambda: scorer, table, items, arrivals, config.window_s)


def name_of(delay_s: float | None, learns: bool = False) -> str:
    """A delay in words: "after 2 hours, learning"."""
    return in_words(delay_s) + ", learning" * learns


def in_words(delay_s: float | None) -> str:
    if delay_s is None:
        return NEVER
    unit, seconds = next(
        (u, s) for u, s in UNITS.items() if delay_s % s == 0 and delay_s >= s or s == 1
    )
    count = delay_s / seconds
    return f"after {count:g} {unit}{'s' * (count != 1)}"


if __name__ == "__main__":
    sys.exit(run(main))
