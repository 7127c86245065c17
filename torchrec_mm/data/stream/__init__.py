"""Batches of an encoded data set, in an order that all ranks derive alike.

`epoch.py` says which requests make a step, `loader.py` reads a rank's share of them, `collate.py`
makes a batch of it. The order is part of what a resumed run relies on: do not change it.

Read first: batches.py, what a step sees.
"""
