"""A trace of a few training steps, for chrome://tracing or Perfetto."""

import logging
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from torchrec_mm.files import new_file

SKIPPED_STEPS = 3  # the first ones build the pipeline and fill caches
WARMUP_STEPS = 1


class StepProfiler:
    """Writes one trace of ``steps`` consecutive steps. A context around training."""

    def __init__(self, path: Path, steps: int) -> None:
        """Wait to be entered. ``path``: a JSON file to write. ``steps``: how many to trace or 0."""
        self.path = path
        self.steps = steps
        self.written = False
        self._profile = None
        if steps:
            self._profile = profile(
                activities=supported_activities() & {ProfilerActivity.CPU, ProfilerActivity.CUDA},
                schedule=schedule(
                    wait=0, warmup=WARMUP_STEPS, active=steps, repeat=1, skip_first=SKIPPED_STEPS
                ),
                on_trace_ready=self._write,
            )

    def step(self) -> None:
        """A training step is done."""
        if self._profile:
            self._profile.step()

    def __enter__(self) -> "StepProfiler":
        if self._profile:
            self._profile.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._profile:
            return
        self._profile.stop()
        if not self.written:
            logging.getLogger(__name__).warning(
                "no trace was written: profile_steps begins after %d steps",
                SKIPPED_STEPS + WARMUP_STEPS,
            )

    def _write(self, profiled: profile) -> None:
        with new_file(self.path) as aside:
            profiled.export_chrome_trace(str(aside))
        self.written = True
