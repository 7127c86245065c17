"""Window after window: scored, learned from by the step that trains, saved, published.

Nothing but the checkpoints says how far a follower is. A window that was not saved is read again.
"""

from dataclasses import asdict, replace
from functools import partial

from torchrec_mm.data.stream.loader import RequestLoader
from torchrec_mm.online.batches import WindowBatches
from torchrec_mm.online.figures import WindowFigures, measure_window, why_withheld
from torchrec_mm.online.publish import publish
from torchrec_mm.online.settings import FollowSettings
from torchrec_mm.online.stream import Stream, Window
from torchrec_mm.online.window_data import WindowData
from torchrec_mm.parallel.process_group import on_first_rank
from torchrec_mm.runs.position import Position
from torchrec_mm.scoring.predictions import predict
from torchrec_mm.train.fit import Loop


class Learner:
    """A follower that is where its last checkpoint is. An epoch of its ``Loop`` is a window."""

    def __init__(
        self, loop: Loop, stream: Stream, batches: WindowBatches, settings: FollowSettings
    ) -> None:
        self.loop, self.stream, self.batches, self.settings = loop, stream, batches, settings

    def run(self) -> None:
        """Take windows until nothing is left to wait for. Collective.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
            Stopped: a rank got SIGTERM. Of both, the last checkpoint is where it goes on.
        """
        if self.loop.run.latest is None:
            self._save(is_published=True)  # what the first delta starts from
        else:
            self._publish()
        once, check = self.settings.once, self.loop.stop.check
        while (window := self.stream.next_window(once, check)) is not None:
            self._take(window)

    def _save(self, is_published: bool) -> None:
        """Have everything on disk, and then the delta, if scorers may have it. Collective."""
        loop = self.loop
        loop.guard.check()
        loop.training.totals.reduce()
        files = loop.run.config_files
        if loop.training.distributed.worker.is_first:
            files += self.stream.state.save(loop.run.path, self.stream.remembered.keys())
        position = loop.training.position
        loop.checkpointer.save(loop.training.shards(), position, None, files, is_published)
        loop.checkpointer.wait()
        self._publish()

    def _publish(self) -> None:
        """Write what was not written before a process was killed. Collective."""
        on_first_rank(partial(publish, self.loop.run.path))

    def _take(self, window: Window) -> None:
        loader = self.batches.loader(window.parts, window.files)
        figures = self._figures(loader)
        withheld = why_withheld(figures, self.settings)
        self.loop.train_epoch(loader)
        if withheld is None:
            state = self.stream.state
            self.stream.state = replace(state, delta=state.delta + 1)
        self._end_window(window, figures, withheld)
        self._save(withheld is None)

    def _figures(self, loader: RequestLoader) -> WindowFigures:
        """What the model says of requests that it has not learned from."""
        data = loader.data
        assert isinstance(data, WindowData)  # of ``WindowBatches``
        self.loop.guard.data = data
        scored = predict(self.loop.training.distributed, loader, self.loop.stop.check)
        return measure_window(scored, data.arrays)

    def _end_window(self, window: Window, figures: WindowFigures, withheld: str | None) -> None:
        """Log it, before it is saved: a line too many is dropped by a resume."""
        training = self.loop.training
        summary = training.totals.close_epoch()
        step, number = training.position.step, training.position.epoch + 1
        training.position = Position(step=step, epoch=number)
        said = asdict(figures)
        counts = {"late": window.late, "duplicates": window.duplicates}
        self.loop.run.log(
            step=step,
            epoch=number,
            window=window.start,
            requests=sum(map(len, window.parts)),
            **said,
            train_loss=summary.loss,
            **counts,
            delta=self.stream.state.delta,
            withheld=withheld,
        )
        shown = {f"window/{n}": float(v) for n, v in {**said, **counts}.items() if v is not None}
        self.loop.observer.write(step, shown | {"window/withheld": float(withheld is not None)})
