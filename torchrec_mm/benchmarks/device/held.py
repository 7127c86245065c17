"""Steps of training over a few batches that lie ready, ours and plain PyTorch's.

Speed alone: what is learned from a handful of batches is not looked at.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle, islice

from torch import Tensor

from torchrec_mm.benchmarks.device.plain_network import PlainMultimodalTraining
from torchrec_mm.benchmarks.ranking import short_ours
from torchrec_mm.benchmarks.ranking.baseline import Baseline, endless
from torchrec_mm.benchmarks.ranking.learner import Learner, impressions_in
from torchrec_mm.benchmarks.ranking.ours import Ours
from torchrec_mm.benchmarks.ranking.sides import RankerTask, ShortTask, steady_rate
from torchrec_mm.parallel.library_warnings import suppress_library_warnings
from torchrec_mm.parallel.process_group import Worker, process_group

HELD = 4  # batches


def muse(task: RankerTask) -> float:
    """Impressions a second of ours; one rank's part."""
    return _of_ours(partial(Ours, task), task.seconds)


def simtier_make(task: ShortTask) -> float:
    """The same of method simtier+make by default flags."""
    return _of_ours(partial(short_ours.learner, task), task.seconds)


def plain_muse(task: RankerTask) -> float:
    """Impressions a second of the ranker benchmark's baseline; one rank's part."""
    with process_group() as worker:
        baseline = Baseline(task, worker.device)
        return _of_plain(baseline.step, endless(task, worker), worker, task.seconds)


def plain_simtier_make(task: ShortTask) -> float:
    """Impressions a second of ``PlainMultimodalTraining``; one rank's part."""
    with process_group() as worker:
        training = PlainMultimodalTraining(task, worker)
        return _of_plain(training.step, training.batches(), worker, task.seconds)


def plain_simtier_make_from_files(task: ShortTask) -> float:
    """The same over all batches, read ahead by processes of its own."""
    with process_group() as worker:
        training = PlainMultimodalTraining(task, worker)
        batches = training.batches()
        return steady_rate(lambda: training.step(next(batches)), task.seconds, worker.device)


def _of_ours(make: Callable[[Worker], Learner], seconds: float) -> float:
    with suppress_library_warnings(), process_group() as worker:
        learner = make(worker)
        reading = learner.batches(count())
        held = cycle(list(islice(reading, HELD)))
        reading.close()
        pipeline = learner.distributed.pipeline()
        step = lambda: impressions_in(pipeline.progress(held))  # noqa: E731
        return steady_rate(step, seconds, worker.device)


def _of_plain(
    step: Callable[[dict[str, Tensor]], int],
    reading: Iterator[dict[str, Tensor]],
    worker: Worker,
    seconds: float,
) -> float:
    held = list(islice(reading, HELD))
    if worker.device.type == "cuda":
        held = [{name: each.pin_memory() for name, each in batch.items()} for batch in held]
    batches = cycle(held)
    return steady_rate(lambda: step(next(batches)), seconds, worker.device)
