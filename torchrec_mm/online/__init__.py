"""Learning from requests as they arrive: windows of their time, checkpoints, deltas for scorers.

A window of requests is read (stream.py), scored by what was learned before it (figures.py), learned
from by the step that trains (learner.py), saved, and published, unless the gate is shut
(publish.py).

Read first: follow.py
"""
