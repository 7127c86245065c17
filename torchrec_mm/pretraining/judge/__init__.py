"""How good an encoder's vectors are before any ranker: held-out searches against all items.

Names in retrieval.json stay, since tables of earlier runs are made of them. All of it is
collective: every rank calls it and gets the same figures.

Read first: judge.py, then evaluation.py.
"""
