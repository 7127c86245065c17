"""The training loop of phase two: steps, windows of figures, guards, epochs.

Knows no model. What may be asked of it is in ``settings.py``, which commands inherit. What a step
does is in ``Loop``; what is told of it in ``observer.py``; what stops it in ``guards.py`` and
``runs/stop.py``.

Read first: fit.py
"""
