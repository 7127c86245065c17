"""The ranker behind traffic: a checkpoint without a process group, micro-batches, HTTP.

A request is read (wire.py), waits with others (batcher.py), becomes a batch of the network that
trained (requests.py, catalogue.py), is scored (scorer.py) and answered (app.py).

Read first: scorer.py, then app.py
"""
