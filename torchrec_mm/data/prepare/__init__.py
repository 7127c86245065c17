"""A user's own logs to the folders of the data contract, point in time.

An adapter is one file: `events.py` (with DuckDB or Spark), `impressions.py`, `movielens.py`. What
counts as a click, a request or a test row may only change together with ../README.md.

Read first: events.py, the rules; behaviours.py holds the point in time.
"""
