"""A ranker behind HTTP: click probabilities of the candidates of a request.

python -m apps.serve --run_dir runs/id
curl localhost:8000/score -d '{"user_id": 1, "candidate_item_ids": [2, 3]}'
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from torchrec_mm.config import check_fields, parse, run
from torchrec_mm.errors import InputError

NEEDED = ("fastapi", "uvicorn", "orjson", "prometheus_client")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Score requests as they come, by the newest checkpoint of a run, in one process.

    POST /score takes JSON, or Arrow by content-type application/vnd.apache.arrow.stream: the
    columns of requests/ without labels, a request or several. GET /health, /ready, /metrics, and
    with additions POST /behaviours.
    """

    run_dir: Path
    """Folder of a ranker run."""
    items: Path | None = None
    """Folder like items/; not given: items/ of the run's data. Items that are not in it are scored
    by their vector, and by their id if training showed it."""
    vectors: Path | None = None
    """Folder of item vectors of the same encoder, or a live index, whose new items are scored by
    their vectors as they come; not given: the run's."""
    vectors_s: float = 0.5
    """Seconds between two looks for what is new in a live index."""
    histories: Path | None = None
    """Folder of Parquet files, a row a user: user_id, behaviour_item_ids, and what else the ranker
    reads of behaviours. A request that brings none has its user's."""
    additions: Path | None = None
    """Folder on a disk of this host for behaviours that clients add by POST /behaviours, made if it
    is not there; they come after those of histories. Not given: there is no such route."""
    log: Path | None = None
    """Folder to keep what is scored in, Parquet as requests/ has it, and what was answered: whom
    you serve, and what they did; not given: nothing is kept."""
    log_s: float = 60.0
    """Seconds that a request waits for its file of the log: as much is lost when this process is
    killed, nothing when it is told to end."""
    log_share: float = 1.0
    """Of the requests, by chance, that the log keeps."""
    parity_share: float = 0.0
    """Of the requests, by chance, that apps.predict scores again, in a process of low
    priority; /metrics has the largest difference. 0: none."""
    parity_s: float = 60.0
    """Seconds between two such comparisons, of 256 bodies at most."""
    page: bool = False
    """Serve GET /page as well, for people: a user's past, candidates with pictures, and what made
    each score. Whoever reaches the port can look at any user's."""
    checkpoint: str = "latest"
    """Which of the run's checkpoints: latest (of a run that follows requests, the latest that it
    published), best (by test AUC in training) or its steps."""
    tables: Literal["fp32", "int8"] = "fp32"
    """How the rows of embedding tables are held: int8 with a scale and an offset a row is less
    memory and not faster, and scores differ a little from those of apps.predict."""
    host: str = "127.0.0.1"
    """Address to listen at: this machine alone, unless told otherwise. There is no encryption and
    no log-in: put a proxy in front of it that has both."""
    port: int = 8000
    """0 for any free one, which is printed."""
    threads: int = 0
    """Of torch, for a batch; 0 for one a core but the one that reads and answers."""
    batch_candidates: int = 2048
    """Most candidates in one batch, unless one client asks for more."""
    queue_candidates: int = 20_000
    """Candidates that may wait; beyond them clients are told to come again, with status 503."""
    timeout_s: float = 2.0
    """In which a body has to come, and then its answer."""
    reload_s: float = 0.0
    """Seconds between two looks for a newer checkpoint or delta, which takes this one's place while
    requests go on; 0 never looks. Only with checkpoint latest."""
    max_body_bytes: int = 4 << 20
    """Of a request's body."""
    max_requests: int = 256
    """In one body."""
    max_candidates: int = 2_000
    """Of one request."""
    max_behaviours: int = 10_000
    """Of one request; the newest are used, as in training."""

    def __post_init__(self) -> None:
        least_1 = ("batch_candidates", "queue_candidates", "max_body_bytes", "max_requests")
        check_fields(self, lambda x: x >= 1, "at least 1", *least_1, "max_candidates")
        check_fields(self, lambda x: x >= 0, "at least 0", "threads", "reload_s", "max_behaviours")
        above_0 = ("timeout_s", "vectors_s", "log_s", "parity_s")
        check_fields(self, lambda x: 0 < x < float("inf"), "above 0", *above_0)
        check_fields(self, lambda x: 0 < x <= 1, "above 0, at most 1", "log_share")
        check_fields(self, lambda x: 0 <= x <= 1, "in [0, 1]", "parity_share")
        check_fields(self, lambda x: 0 <= x <= 65_535, "in [0, 65535]", "port")
        for name, of in (("log_s", "log"), ("log_share", "log"), ("parity_s", "parity_share")):
            given, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if not getattr(self, of) and given != default:
                raise InputError(f"{name} must not be given without {of}, got {given}")
        if self.reload_s and self.checkpoint != "latest":
            raise InputError(f"reload_s must be 0 with checkpoint {self.checkpoint}")


def main(argv: Sequence[str] | None = None) -> None:
    """Load, listen, score until told to stop."""
    config = parse(ServeConfig, argv)
    for package in NEEDED:
        if find_spec(package) is None:
            raise InputError(f"apps.serve needs {package}: pip install 'torchrec-mm[serving]'")
    import torch

    from torchrec_mm.runs.checkpoint_folders import PUBLISHED
    from torchrec_mm.scoring.trained_run import TrainedRun
    from torchrec_mm.serving.app import ServingSettings
    from torchrec_mm.serving.parity import ParitySettings
    from torchrec_mm.serving.request_log.writer import LogSettings
    from torchrec_mm.serving.serve import serve
    from torchrec_mm.serving.vectors import FollowedVectors
    from torchrec_mm.serving.wire import Limits

    torch.set_num_threads(config.threads or max(1, torch.get_num_threads() - 1))
    latest = config.checkpoint == "latest"
    trained = TrainedRun.open(config.run_dir, PUBLISHED if latest else config.checkpoint)
    log = None
    if config.log:
        log = LogSettings(folder=config.log, seconds=config.log_s, share=config.log_share)
    parity = None
    if config.parity_share:
        parity = ParitySettings(share=config.parity_share, seconds=config.parity_s)
    serve(
        trained,
        ServingSettings(
            limits=Limits(
                bytes=config.max_body_bytes,
                requests=config.max_requests,
                candidates=config.max_candidates,
                behaviours=config.max_behaviours,
            ),
            timeout_s=config.timeout_s,
            batch_candidates=config.batch_candidates,
            queue_candidates=config.queue_candidates,
            reload_s=config.reload_s,
        ),
        items=config.items or trained.items,
        vectors=FollowedVectors.open(trained, config.vectors, config.vectors_s),
        histories=config.histories,
        additions=config.additions,
        log=log,
        parity=parity,
        tables=config.tables,
        with_page=config.page,
        host=config.host,
        port=config.port,
    )


if __name__ == "__main__":
    sys.exit(run(main))
