"""Phase two's model: ID tables, and the ways in which item vectors join them.

Modules are written for one device and return ``(loss, outputs)``. A method is a name in ``spec.py``
and a list of parts in ``parts.py``. Names of tensors are those of checkpoints on disk: renaming one
is a change of format.

Read first: ranker.py
"""
