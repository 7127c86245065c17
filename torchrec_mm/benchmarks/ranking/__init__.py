"""Both sides of ``apps.benchmark ranker`` and ``short``: ours, and plain code of a public shape.

Both sides learn from the same drawn users. The ranker's baseline is kept as such code is found,
slow parts included; what makes a baseline faster without changing its shape is welcome.

Read first: sides.py
"""
