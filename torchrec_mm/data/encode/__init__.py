"""Requests to an encoded data set: every id mapped to a table row once, before training.

A source (`source.py`, `taobao_mm.py`) is read once: `number.py` turns ids into numbers, which
`mapping.py` and `writer.py` turn into rows. The files and the keys of `meta.json` stay: data sets
encoded before must be readable.

Read first: encode.py.
"""
