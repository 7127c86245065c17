"""Who should find whom: rows of the packed content to batches of pairs.

A new way to pair is a function in `pairs.py` and a name in `methods.py`. What a step holds
follows from seed, epoch and step alone; a resumed run relies on that.

Read first: pairs.py, then pair_loader.py.
"""
