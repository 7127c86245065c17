"""A ranker goes on to learn from requests that keep arriving.

Read on: stream.py cuts windows, learner.py takes them.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from torchrec_mm.data.encode.source import known_columns
from torchrec_mm.errors import InputError
from torchrec_mm.files import new_file
from torchrec_mm.online.batches import WindowBatches
from torchrec_mm.online.learner import Learner
from torchrec_mm.online.publish import KEPT_PUBLISHED
from torchrec_mm.online.redis_requests import RedisRequests
from torchrec_mm.online.settings import FollowSettings
from torchrec_mm.online.spool import RequestSource, RequestSpool
from torchrec_mm.online.stream import Stream
from torchrec_mm.online.stream_state import StreamState
from torchrec_mm.parallel.sharding import DistributedModel
from torchrec_mm.ranking.ranker import Ranker
from torchrec_mm.runs.checkpoint import load_checkpoint
from torchrec_mm.runs.checkpoint_folders import list_checkpoints
from torchrec_mm.runs.checkpointer import Checkpointer
from torchrec_mm.runs.position import Position
from torchrec_mm.runs.run_folder import CHECKPOINTS, RunFolder
from torchrec_mm.runs.stop import Stop, Stopped
from torchrec_mm.runs.tensor_shards import model_shards
from torchrec_mm.scoring.trained_run import CODEBOOKS, FREQUENCY, VOCABULARIES, TrainedRun
from torchrec_mm.train.fit import Loop, frozen_garbage, last_checkpoint, restore
from torchrec_mm.train.guards import Guard
from torchrec_mm.train.observer import Observer
from torchrec_mm.train.state import Training


def gone_on_with(run_dir: Path, settings: FollowSettings) -> TrainedRun:
    """The run whose latest checkpoint is where learning goes on: the followed one, once it has any.

    Raises:
        InputError: no such run, one without checkpoints, or one that does not learn in steps.
    """
    is_begun = settings.resume and list_checkpoints(run_dir / CHECKPOINTS)
    assert settings.start_from is not None  # ``FollowSettings`` asks for it
    trained = TrainedRun.open(run_dir if is_begun else settings.start_from, "latest")
    if trained.method == "bias":
        rule = "start_from must be a run of a method that learns in steps"
        raise InputError(f"{rule}, got method bias in {trained.path}")
    return trained


def source_of(trained: TrainedRun, settings: FollowSettings) -> RequestSource:
    """Requests with the columns that the ranker reads."""
    reads = known_columns(trained.vocabularies), trained.behaviours_read
    if settings.follow_redis is not None:
        return RedisRequests(settings.follow_redis, settings.stream, *reads)
    assert settings.follow is not None  # else nothing is followed
    return RequestSpool(settings.follow, *reads)


def write_description(run: RunFolder, trained: TrainedRun) -> None:
    """What ``TrainedRun`` reads of a run besides checkpoints, as it was; collective."""
    run.write_model(trained.model)
    if not run.worker.is_first or trained.path == run.path:
        return
    for name in (VOCABULARIES, FREQUENCY, CODEBOOKS):
        if (trained.path / name).is_file():
            with new_file(run.path / name) as aside:
                shutil.copyfile(trained.path / name, aside)


def follow(
    distributed: DistributedModel,
    batches: WindowBatches,
    source: RequestSource,
    trained: TrainedRun,
    run: RunFolder,
    settings: FollowSettings,
) -> None:
    """Learn until SIGTERM, or until nothing is left. Collective.

    Args:
        distributed: model and optimizers of ``trained``, still to be filled.
        batches: of requests. source: where they are from.
        trained: of ``gone_on_with``. run: where to write.

    Raises:
        InputError: the checkpoint does not fit, or one could not be written.
        TrainingDiverged: the loss became NaN or infinite.
        Stopped: a rank got SIGTERM; the last checkpoint is where it goes on.
    """
    training = Training(distributed)
    # What scores is what learns: else the network would learn again what its effects say already.
    cast(Ranker, distributed.model.module).learns_beside_effects = True
    with (
        Stop(settings.stop_timeout_s) as stop,
        Checkpointer(run.checkpoints, settings.keep_checkpoints, KEPT_PUBLISHED) as checkpointer,
    ):
        state, remembered = _fill(training, trained, run, settings)
        run.drop_records_after(training.position)
        with Observer(
            run,
            training.position,
            hang_timeout_s=settings.hang_timeout_s,
            profile_steps=settings.profile_steps,
        ) as observer:
            guard = Guard(None, lambda: last_checkpoint(run, checkpointer))
            loop = Loop(training, run, settings, checkpointer, observer, guard, stop)
            set_aside = partial(_set_aside, loop)
            stream = Stream(source, settings.window_s, state, remembered, set_aside)
            try:
                with frozen_garbage():
                    Learner(loop, stream, batches, settings).run()
            except Stopped:
                checkpointer.wait()
                stop.say(_last_step(run))
                raise
        if run.worker.is_first:
            print(_in_words(stream.state, training.position), flush=True)


def _set_aside(loop: Loop, name: str, problem: str) -> None:
    """Log a file that cannot be read, as of the window that is open."""
    step, window = loop.training.position.step, loop.training.position.epoch + 1
    loop.run.log(step=step, epoch=window, set_aside=name, reason=problem)


def _fill(
    training: Training, trained: TrainedRun, run: RunFolder, settings: FollowSettings
) -> tuple[StreamState, np.ndarray]:
    """The model as the run left it; where the stream goes on, and what is remembered of it."""
    if run.latest is not None:
        restore(run, training, settings.allow_keys)
        return StreamState.load(run.latest.folder)
    distributed = training.distributed
    distributed.create_optimizer_state()
    shards = model_shards(distributed.model, distributed.optimizer)
    load_checkpoint(trained.checkpoint, shards, ignore=("epoch.",), allow=settings.allow_keys)
    step = int(trained.checkpoint.name.rpartition("-")[2])
    training.position = Position(step=step)
    distributed.set_step(step)
    return StreamState(), np.empty(0, np.int64)


def _last_step(run: RunFolder) -> int:
    latest = run.latest
    return 0 if latest is None else latest.position.step


def _in_words(state: StreamState, position: Position) -> str:
    counts = ("requests", "late", "duplicates", "set_aside")
    said = ", ".join(f"{name} {getattr(state, name)}" for name in counts)
    return f"windows {position.epoch}, {said}; delta {state.delta}"
