"""Silence lasts for the block, and no longer."""

import logging
import warnings

import pytest

from torchrec_mm.parallel.library_warnings import NOISY_LOGGERS, suppress_library_warnings


def test_inside_the_block_chat_is_unheard_and_errors_are_heard(recwarn):
    with suppress_library_warnings():
        warnings.warn("soon to change", FutureWarning, stacklevel=1)
        for name in NOISY_LOGGERS:
            assert not logging.getLogger(name).isEnabledFor(logging.WARNING)
            assert logging.getLogger(name).isEnabledFor(logging.ERROR)
    assert not recwarn.list


def test_everything_is_as_it_was_even_when_the_block_fails():
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    for logger in loggers:
        logger.setLevel(logging.INFO)
    with pytest.raises(RuntimeError), suppress_library_warnings():
        raise RuntimeError
    assert [logger.level for logger in loggers] == [logging.INFO] * len(loggers)
    for logger in loggers:
        logger.setLevel(logging.NOTSET)
    with pytest.warns(FutureWarning):
        warnings.warn("heard again", FutureWarning, stacklevel=1)
