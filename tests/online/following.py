"""Small runs that follow: a spool, the command, and what it left."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

import apps.train_ranker
from tests.helpers.runs import lines_of
from tests.helpers.small_market import DAY_S, SmallMarket
from torchrec_mm.runs.checkpoint import read_checkpoint
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.scoring.score import open_vectors
from torchrec_mm.scoring.trained_run import TrainedRun
from torchrec_mm.serving.current import Current
from torchrec_mm.serving.measures import Measures
from torchrec_mm.serving.scorer import Scorer
from torchrec_mm.serving.weights import Weights

WINDOW_S = 5  # the small market has a request a second
START = 10 * DAY_S  # of its first
ALL = "100"  # checkpoints


def requests_of(market: SmallMarket, first: int = 0, end: int | None = None) -> pa.Table:
    """What arrives: the requests of its test split [first, end)."""
    table = pq.read_table(market.data / "requests" / "test")
    return table.slice(first, None if end is None else end - first)


def later(table: pa.Table, seconds: int) -> pa.Table:
    """The same requests at another time."""
    times = pa.array([time + seconds for time in table["timestamp"].to_pylist()], pa.int64())
    return table.set_column(table.column_names.index("timestamp"), "timestamp", times)


def put(spool: Path, name: str, table: pa.Table) -> Path:
    """A file that is there at once."""
    spool.mkdir(parents=True, exist_ok=True)
    aside = spool / f".{name}"
    pq.write_table(table, aside)
    return aside.rename(spool / name)


def put_all(spool: Path, table: pa.Table, rows: int = 7) -> None:
    """In files of so many rows, which do not end where windows do."""
    for start in range(0, len(table), rows):
        put(spool, f"{start:05d}.parquet", table.slice(start, rows))


def follow_flags(spool: Path, start_from: Path, run_dir: Path, *more: str) -> list[str]:
    flags = ["--follow", spool, "--start_from", start_from, "--run_dir", run_dir]
    own = ["--window_s", WINDOW_S, "--once", "true", "--resume", "true", "--keep_checkpoints", ALL]
    return [*map(str, [*flags, *own]), *more]


def follow(spool: Path, start_from: Path, run_dir: Path, *more: str) -> Path:
    """Until nothing is left."""
    apps.train_ranker.main(follow_flags(spool, start_from, run_dir, *more))
    return run_dir


def windows_of(run_dir: Path) -> list[dict]:
    """Lines of metrics.jsonl, one a window."""
    return lines_of(run_dir, "window")


def state_of(run_dir: Path) -> dict[str, Tensor]:
    """All that the latest checkpoint holds, optimizers too."""
    return read_checkpoint(list_checkpoints(run_dir / "checkpoints")[-1].folder, "")


def same_bits(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[key].numpy().tobytes() == theirs[key].numpy().tobytes() for key in theirs
    )


def deltas_of(run_dir: Path) -> dict[str, bytes]:
    """Content by name."""
    return {file.name: file.read_bytes() for file in sorted((run_dir / "deltas").glob("*"))}


def scorer_of(trained: TrainedRun) -> Scorer:
    vectors = open_vectors(trained, None, "mapped")
    return Scorer.open(trained, trained.items, (lambda: vectors) if vectors else None)


def current_of(run_dir: Path, kind: type[Current] = Current) -> Current:
    """What a server that is started now scores by."""
    return kind(TrainedRun.open(run_dir, "published"), scorer_of, Measures())


def weights_of(scorer: Scorer) -> dict[str, Tensor]:
    return {k: tensor.clone() for k, tensor in Weights(scorer.model.ranker).tensors().items()}


def copy_of(run_dir: Path, to: Path) -> Path:
    shutil.copytree(run_dir, to)
    return to


def steps_of(run_dir: Path) -> list[int]:
    return [each.position.step for each in list_checkpoints(run_dir / "checkpoints")]


def scorer_at(run_dir: Path, step: int) -> Scorer:
    """Of one checkpoint."""
    return scorer_of(TrainedRun.open(run_dir, str(step)))


def set_aside(run_dir: Path) -> dict[str, str]:
    """Why, by file."""
    return {line["set_aside"]: line["reason"] for line in lines_of(run_dir, "set_aside")}


def counted(current: Current, outcome: str) -> float:
    """Deltas."""
    return current._measures.deltas.labels(outcome)._value.get()


def is_close(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float) -> bool:
    return ours.keys() == theirs.keys() and all(
        torch.allclose(ours[key].double(), theirs[key].double(), atol=tolerance) for key in theirs
    )
