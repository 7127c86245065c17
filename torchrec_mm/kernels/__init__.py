"""Loops that PyTorch and NumPy have no operator for, in C++ beside a reference in one of them.

Not public. Where there is no compiler the reference runs, and on a GPU that or one of triton/: a
kernel may change in speed, its results may not.

Read first: build.py, then distinct.py and distinct.cpp, the smallest pair.
"""
