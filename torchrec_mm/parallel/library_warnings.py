"""Keep other libraries' notes to their own developers out of our users' terminals."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NOISY_LOGGERS = ("torchrec", "torch.fx", "torch.distributed.checkpoint")


@contextmanager
def suppress_library_warnings() -> Iterator[None]:
    """For the block: no FutureWarnings, and errors only from the loggers that chat.

    Everything is as it was when the block ends.
    """
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
