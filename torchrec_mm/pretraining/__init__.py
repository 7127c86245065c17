"""Phase one: pictures and titles to item vectors; it meets phase two in their files alone.

In the order of a run: `encoder`, the model; `pairs`, what it learns from; `scl`, how it learns;
`judge`, how good its vectors are; `embed`, the vectors of all items.

Read first: encoder/side.py, the batch of pairs, then scl/training.py.
"""
