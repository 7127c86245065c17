"""How far a run has come: what a checkpoint is named by."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far training has come.

    step: since the run began. epoch: the one that goes on, from 0, so as many are finished.
    requests_done: requests of it, or searches in phase one, that were learned from, the same for
    any number of ranks; a request in pieces counts once a piece.

    >>> Position(step=100, requests_done=25_600)
    Position(step=100, epoch=0, requests_done=25600)
    """

    step: int = 0
    epoch: int = 0
    requests_done: int = 0
