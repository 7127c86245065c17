"""Requests replayed in the order of time, while the vectors of new items arrive.

What is a vector worth that is there after seconds, and what one that comes tomorrow? The scorer
answers as it would have then, by a live index that has what had arrived.

Read first: replay.py.
"""
