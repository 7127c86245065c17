"""Both sides of ``apps.benchmark ranker``: ours, and a baseline in the shape of public code.

Both learn from the same drawn users. The baseline is kept as such code is found, slow parts
included; what makes it faster without changing its shape is welcome.

Read first: sides.py
"""
