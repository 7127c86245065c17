"""An encoded data set, read back: vocabularies, items, requests by row group.

Numbers read from disk become addresses in kernels, so all are checked at the first reading
(`checks.py`). What earlier versions wrote must be readable.

Read first: encoded.py.
"""
