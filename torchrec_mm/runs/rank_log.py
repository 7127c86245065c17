"""logs/ of a run: what each rank has to say, so that it can be read after the terminal is gone."""

import logging
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from torchrec_mm.errors import InputError
from torchrec_mm.parallel.process_group import Worker

OURS = logging.getLogger("torchrec_mm")
ENDING = {"is_ending": True}  # of a record: how the block ended, which the command itself prints


@contextmanager
def rank_log(folder: Path, worker: Worker) -> Iterator[None]:
    """For the block: append to ``folder/rank-<rank>.log`` whatever this rank logs and raises.

    Our own modules' logging from INFO on, that of others from WARNING on, warnings, and the
    exception that ends the block, which goes on. stderr gets what it always gets. Each record is
    handed to the operating system at once, so SIGKILL loses none; each line has its time (UTC),
    rank and level.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(
        folder / f"rank-{worker.rank:05}.log", encoding="utf-8", errors="backslashreplace"
    )
    handler.setFormatter(_EachLine(worker.rank))
    handler.addFilter(_is_for_users)
    with _attached(handler), _warnings_too(handler):
        OURS.info(
            "started as rank %d of %d on %s: %s",
            *(worker.rank, worker.world_size, platform.node(), shlex.join(sys.orig_argv)),
        )
        try:
            yield
        except InputError as error:
            OURS.error("error: %s", " ".join(str(error).split()), extra=ENDING)
            raise
        except SystemExit as leaving:
            OURS.info("left with status %s", leaving.code)
            raise
        except BaseException as error:
            OURS.critical("ended by %s", type(error).__name__, exc_info=True, extra=ENDING)
            raise
        OURS.info("done")


def _is_for_users(record: logging.LogRecord) -> bool:
    """Whether it is ours, or serious: torch's checkpoints log hundreds of lines a save."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] == OURS.name


def _is_for_terminals(record: logging.LogRecord) -> bool:
    """Whether it is a warning, or not ours: how a rank started and ended is for its log alone."""
    is_ours = record.name.partition(".")[0] == OURS.name
    return not is_ours or (record.levelno >= logging.WARNING and "is_ending" not in vars(record))


class _EachLine(logging.Formatter):
    """Time, rank and level before every line, those of a traceback too."""

    converter = staticmethod(time.gmtime)

    def __init__(self, rank: int) -> None:
        super().__init__("%(name)s: %(message)s")
        self.rank = rank

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        at = self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03}Z"
        before = f"{at} rank {self.rank} {record.levelname} "
        return "\n".join(before + line for line in text.splitlines())


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    """For the block: the handler on the root logger, and on those that do not propagate to it."""
    named = logging.root.manager.loggerDict.values()
    apart = [log for log in named if isinstance(log, logging.Logger) and not log.propagate]
    handlers = [(log, handler) for log in (logging.root, *apart)]
    shown = list(logging.root.handlers)
    if not shown and logging.lastResort is not None:  # its last resort, stderr, would fall silent
        shown = [logging.lastResort]
        handlers.append((logging.root, logging.lastResort))
    level = OURS.level
    OURS.setLevel(logging.INFO)
    for others in shown:
        others.addFilter(_is_for_terminals)
    for log, added in handlers:
        log.addHandler(added)
    try:
        yield
    finally:
        for others in shown:
            others.removeFilter(_is_for_terminals)
        for log, added in handlers:
            log.removeHandler(added)
        OURS.setLevel(level)
        handler.close()


@contextmanager
def _warnings_too(handler: logging.Handler) -> Iterator[None]:
    """For the block: the handler gets warnings besides whoever shows them."""
    show = warnings.showwarning

    def show_and_log(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        show(message, category, filename, lineno, file, line)
        text = f"{filename}:{lineno}: {category.__name__}: {message}"
        level = {"levelno": logging.WARNING, "levelname": "WARNING"}
        handler.handle(logging.makeLogRecord({"name": "py.warnings", "msg": text, **level}))

    warnings.showwarning = show_and_log
    try:
        yield
    finally:
        warnings.showwarning = show
