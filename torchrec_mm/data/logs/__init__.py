"""Logs as people have them, to rows of the data contract's types: for every source and engine.

Formats, names, times and ids that are text. What fits two readings is refused, and what is found
out is said: that may not change. What the rows mean is for `data.prepare`.

Read first: reading.py, files to raw tables; forms.py, raw values to typed ones.
"""
